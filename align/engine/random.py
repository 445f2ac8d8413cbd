"""Randomness by key: every draw is a pure function of what it is for, whatever the processes and batch sizes are.

A key is any sequence of integers and texts: (seed, step, "rollout_noise", ...). There is no hidden state to save.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SEED_BITS = 63


def seed_of(*parts: int | str) -> int:
    """Stable 63-bit number for a key; 1 and "1" are different parts, and so are ("ab",) and ("a", "b")."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "little") >> (64 - _SEED_BITS)


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator seeded by the key."""
    return torch.Generator().manual_seed(seed_of(*parts))


def keyed_normal(shape: tuple[int, ...], index: Int[Tensor, "n"], *parts: int | str) -> Float[Tensor, "n *shape"]:
    """Standard normal noise, float32 on the CPU; row i depends on the key and on index[i] only.

    Args:
        shape: shape of one row.
        index: global row numbers.
        parts: key of the draw.
    """
    noise = torch.empty(len(index), math.prod(shape))
    source = torch.Generator()
    for row, number in enumerate(index.tolist()):
        source.manual_seed(seed_of(*parts, number))
        torch.randn(noise.shape[1], generator=source, out=noise[row])
    return noise.reshape(len(index), *shape)
