"""CLIPScore: how well a picture fits its prompt, by a CLIP network of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PIL.Image import Image

from align.rewards.clip_network import Clip, cosines, transformers_clip
from align.rewards.network import Lazy, pick_device, pick_dtype, place_of
from align.rewards.options import whole

OPENAI_L14 = "openai/clip-vit-large-patch14"


def lazy_clip(model: str, processor: str, device: str, dtype: str, batch_size: int) -> Lazy[Clip]:
    """The network of a scorer's options: checked now, loaded when it is first wanted.

    Raises:
        AlignError: an option that cannot be used, or a path where nothing is.
    """
    whole("batch_size", batch_size)
    make = partial(
        transformers_clip,
        place_of("model", model),
        place_of("processor", processor),
        pick_device(device),
        pick_dtype(dtype),
        batch_size,
    )
    return Lazy(make)


class ClipScore:
    """Cosine between the picture's and the prompt's CLIP embeddings; about 0.2 to 0.35 for ViT-L/14.

        score = cos(f(image), g(prompt)) = logits_per_image / 100

    Prompts are cut to 77 tokens. Pictures: shorter side to 224 pixels (Pillow's bicubic), middle square.

    Args:
        model: folder or hub id of a CLIP of transformers.
        processor: folder or hub id of its tokenizer; None is `model`.
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: float32, float16 or bfloat16.
        batch_size: pictures in one forward pass.

    Note:
        Hessel et al. multiply by 2.5 and cut off below 0; trainers in this field use the bare cosine, and so do we.

    References:
        Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", arXiv:2104.08718.
    """

    def __init__(
        self,
        model: str = OPENAI_L14,
        processor: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        self.clip = lazy_clip(model, model if processor is None else processor, device, dtype, batch_size)

    def __call__(self, *, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One score per picture."""
        return cosines(self.clip(), images, prompts).tolist()
