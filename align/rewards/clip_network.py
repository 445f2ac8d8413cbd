"""Pictures and texts as CLIP sees them: exact preprocessing, and one small class around each library's network.

A picture is resized by Pillow's bicubic filter, made float in [0, 1] and normalised by CLIP's mean and std per channel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from align.rewards.network import batches

logger = logging.getLogger(__name__)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def cropped(image: Image.Image, side: int) -> Image.Image:
    """The shorter side scaled to `side`, the middle square cut out: CLIP's own preprocessing."""
    width, height = image.size
    short = min(width, height)
    size = (side, int(side * height / short)) if width == short else (int(side * width / short), side)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return image.crop((left, top, left + side, top + side))


def padded(image: Image.Image, side: int) -> Image.Image:
    """The longer side scaled to `side`, black on both ends of the shorter one: HPSv2's preprocessing."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((side - width) // 2, (side - height) // 2))
    return canvas


def pixels(
    images: Sequence[Image.Image], side: int, fit: Callable[[Image.Image, int], Image.Image] = cropped
) -> Float[Tensor, "n 3 side side"]:
    """Pictures of any mode and size as CLIP's input.

    Args:
        images: pictures; other modes are converted to RGB (transparency is dropped).
        side: of the input, in pixels.
        fit: `cropped` or `padded`.
    """
    import numpy as np

    arrays = np.stack([np.asarray(fit(image.convert("RGB"), side), dtype=np.float32) for image in images])
    values = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Clip:
    """A CLIP network that embeds pictures and texts, whichever library it is from.

    Args:
        network: in evaluation mode, on its device.
        side: of its picture input, in pixels.
        images: network and pixels -> embeddings.
        texts: network and token ids -> embeddings.
        tokenize: texts -> token ids, cut to the network's context, and the number of texts that were cut.
        fit: how a picture is made square.
        batch_size: pictures or texts in one forward pass.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        side: int,
        images: Callable[[Tensor], Tensor],
        texts: Callable[[Tensor], Tensor],
        tokenize: Callable[[Sequence[str]], tuple[Int[Tensor, "n l"], int]],
        fit: Callable[[Image.Image, int], Image.Image] = cropped,
        batch_size: int = 32,
    ) -> None:
        self.network, self.side, self.fit, self.batch_size = network, side, fit, batch_size
        self.truncated = 0
        self._images, self._texts, self._tokenize = images, texts, tokenize

    @property
    def logit_scale(self) -> float:
        """exp of the trained temperature: 100 for most published networks."""
        return float(self.network.get_parameter("logit_scale").detach().float().exp())

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Embeddings of unit length, float32, on the CPU."""
        weight = next(self.network.parameters())
        parts = [
            self._images(pixels(images[rows], self.side, self.fit).to(weight.device, weight.dtype))
            for rows in batches(len(images), self.batch_size)
        ]
        return _unit(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embeddings of unit length, float32, on the CPU. Each distinct text goes through the network once."""
        distinct = list(dict.fromkeys(texts))
        ids, truncated = self._tokenize(distinct)
        self._count(truncated, len(distinct), ids.shape[1])
        device = next(self.network.parameters()).device
        embedded = _unit([self._texts(ids[rows].to(device)) for rows in batches(len(distinct), self.batch_size)])
        place = {text: row for row, text in enumerate(distinct)}
        return embedded[[place[text] for text in texts]]

    def _count(self, truncated: int, texts: int, context: int) -> None:
        if truncated and not self.truncated:
            logger.warning(
                "%d of %d prompts are longer than the %d tokens that the scorer reads; their ends are cut off "
                "(told once; `truncated` counts)",
                truncated,
                texts,
                context,
            )
        self.truncated += truncated


def cosines(clip: Clip, images: Sequence[Image.Image], texts: Sequence[str]) -> Float[Tensor, "n"]:
    """Cosine between each picture's embedding and its text's, in [-1, 1]."""
    if not images:
        return torch.zeros(0)
    return (clip.embed_images(images) * clip.embed_texts(texts)).sum(dim=1)


def transformers_clip(model: str, processor: str, device: torch.device, dtype: torch.dtype, batch_size: int) -> Clip:
    """A CLIP of transformers: a folder, or the id of a hub repository.

    Args:
        model: where the network is.
        processor: where its tokenizer is.
        device: where it runs.
        dtype: number format of the weights.
        batch_size: pictures or texts in one forward pass.
    """
    from transformers import AutoTokenizer, CLIPModel

    network: Any = CLIPModel.from_pretrained(model, dtype=dtype)
    network = network.to(device).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(processor)
    context = network.config.text_config.max_position_embeddings

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, int]:
        whole = tokenizer(list(texts), verbose=False)["input_ids"]
        cut = tokenizer(list(texts), padding="max_length", truncation=True, max_length=context, return_tensors="pt")
        return cut["input_ids"], sum(len(ids) > context for ids in whole)

    return Clip(
        network,
        side=network.config.vision_config.image_size,
        images=lambda values: network.get_image_features(pixel_values=values).pooler_output,
        texts=lambda ids: network.get_text_features(input_ids=ids).pooler_output,
        tokenize=tokenize,
        batch_size=batch_size,
    )


def open_clip_clip(
    name: str,
    weights: dict[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    fit: Callable[[Image.Image, int], Image.Image] = cropped,
) -> Clip:
    """A CLIP of open-clip with the given weights.

    Args:
        name: of its architecture, such as `ViT-H-14`.
        weights: all of its tensors.
        device: where it runs.
        dtype: number format of the weights.
        batch_size: pictures or texts in one forward pass.
        fit: how a picture is made square.

    Raises:
        RuntimeError: the weights are of another architecture.
    """
    import open_clip

    network: Any = open_clip.create_model(name, load_weights=False, output_dict=True)
    network.load_state_dict(weights)
    network = network.to(device, dtype).eval().requires_grad_(False)
    tokenizer: Any = open_clip.get_tokenizer(name)
    context = tokenizer.context_length

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, int]:
        return tokenizer(list(texts)), sum(len(tokenizer.encode(text)) + 2 > context for text in texts)

    side = network.visual.image_size
    return Clip(
        network,
        side=side[0] if isinstance(side, tuple) else side,
        images=network.encode_image,
        texts=network.encode_text,
        tokenize=tokenize,
        fit=fit,
        batch_size=batch_size,
    )


def _unit(parts: Sequence[Tensor]) -> Float[Tensor, "n d"]:
    return F.normalize(torch.cat([part.float().cpu() for part in parts]), dim=-1)
