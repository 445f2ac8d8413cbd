"""Tuples of integers as one integer, exactly."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def joint_ids(*keys: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Dense codes 0, 1, ... of tuples: equal exactly where all keys are equal. Any int64 values, no hashing."""
    codes = _dense(keys[0])
    for key in keys[1:]:
        other = _dense(key)
        codes = _dense(codes * (int(other.max()) + 1 if other.numel() else 1) + other)
    return codes


def _dense(key: Tensor) -> Tensor:
    return torch.unique(key.long(), return_inverse=True)[1]
