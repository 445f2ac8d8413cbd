"""The training data of the embedded model: captions drawn by class, pictures drawn by the world, latents cached once."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from diffusion.tiny import world

# Share of each class among the training pictures.
CLASS_SHARES = {"one": 0.08, "placed": 0.13, "count": 0.13, "two": 0.17, "relation": 0.2, "size": 0.13, "three": 0.16}


def draw(count: int, *, seed: int) -> tuple[UInt8[Tensor, "n h w c"], list[str]]:
    """`count` random pictures and their captions. The base model sees every caption, held-out ones included.

    Args:
        seed: the same seed gives the same pictures.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(CLASS_SHARES), size=count, p=_normalised(CLASS_SHARES.values()))
    pictures = np.empty((count, world.SIDE, world.SIDE, 3), dtype=np.uint8)
    captions = []
    for row, kind in enumerate(kinds):
        choices = world.specs(str(kind))
        spec = choices[rng.integers(len(choices))]
        pictures[row] = np.asarray(world.render(spec, rng))
        captions.append(world.caption(spec))
    return torch.from_numpy(pictures), captions


def _normalised(shares: Sequence[float]) -> np.ndarray:
    values = np.array(list(shares))
    return values / values.sum()
