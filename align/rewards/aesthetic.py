"""LAION's aesthetic predictor: how much people like a picture, whatever the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from align.errors import AlignError
from align.rewards.clip import OPENAI_L14, lazy_clip
from align.rewards.hps import ENDINGS
from align.rewards.network import Lazy, hub_file, place_of, read_weights

HEAD = "trl-lib/ddpo-aesthetic-predictor"
HEAD_FILE = "aesthetic-model.pth"
LAYER = re.compile(r"(?:.*\.)?(\d+)\.(weight|bias)")


def collapsed(weights: Mapping[str, Tensor]) -> tuple[Float[Tensor, "d"], float]:
    """A stack of affine layers with nothing between them, as one affine map to a number.

        W_k (... (W_1 x + b_1) ...) + b_k = w . x + b

    Args:
        weights: `layers.<number>.weight` and `.bias`; the numbers give the order and may have gaps (dropout).

    Returns:
        w and b, multiplied out in float64.

    Raises:
        AlignError: other tensors, or shapes that do not chain down to one number.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in weights.items():
        match = LAYER.fullmatch(name)
        if match is None:
            raise AlignError(f"the aesthetic head has an unknown tensor {name}.", "Expected `layers.<number>.weight`.")
        found.setdefault(int(match[1]), {})[match[2]] = value.double()
    layers = [found[number] for number in sorted(found)]
    sizes: list[tuple[int, ...]] = [tuple(layer["weight"].shape) if len(layer) == 2 else () for layer in layers]
    chained = all(len(size) == 2 for size in sizes) and all(
        later[1] == earlier[0] for earlier, later in pairwise(sizes)
    )
    if not chained or sizes[-1][0] != 1:
        shapes = ", ".join("x".join(map(str, reversed(size))) or "incomplete" for size in sizes)
        raise AlignError(
            f"the aesthetic head's layers ({shapes}) do not lead to one number.",
            "The LAION head is 768-1024-128-64-16-1.",
        )

    def after(first: tuple[Tensor, Tensor], layer: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        weight, bias = first
        return layer["weight"] @ weight, layer["weight"] @ bias + layer["bias"]

    weight, bias = reduce(after, layers[1:], (layers[0]["weight"], layers[0]["bias"]))
    return weight[0], float(bias)


class AestheticScore:
    """Predicted rating of a picture by people, about 4 to 7 on a scale of 1 to 10. The prompt plays no part.

        score = A_5(A_4(A_3(A_2(A_1(f / |f|))))), f = CLIP ViT-L/14's picture embedding, A_i affine, no activation

    so the five layers 768-1024-128-64-16-1 are one linear map, and it is computed as such.

    Args:
        model: folder or hub id of the CLIP of transformers.
        head: file, folder or hub id with the affine layers (`sac+logos+ava1-l14-linearMSE`).
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: of the CLIP network: float32, float16 or bfloat16.
        batch_size: pictures in one forward pass.

    References:
        Schuhmann et al., "LAION-5B: An open large-scale dataset for training next generation image-text models",
        arXiv:2210.08402 (which selects with it).
        Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv:2305.13301 (as a reward).
    """

    def __init__(
        self,
        model: str = OPENAI_L14,
        head: str = HEAD,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        self.clip = lazy_clip(model, model, device, dtype, batch_size)
        place = place_of("head", head, ENDINGS)
        self.head = Lazy(lambda: collapsed(read_weights(hub_file(place, HEAD_FILE))))

    def __call__(self, *, images: Sequence[Image]) -> list[float]:
        """One score per picture."""
        if not images:
            return []
        weight, bias = self.head()
        embedded = self.clip().embed_images(images)
        if embedded.shape[1] != len(weight):
            raise AlignError(
                f"the aesthetic head reads {len(weight)} features, the CLIP network gives {embedded.shape[1]}.",
                "The LAION head belongs to CLIP ViT-L/14.",
            )
        return (embedded.to(torch.float64) @ weight + bias).tolist()
