"""Centring, z-scores and whitening over any pool of numbers; exactly 0 where the pool has no spread.

The rules around the estimators give 0 to groups of equal *rewards*. Credit estimators also compare steps, states and
nodes, whose pools can be constant in a group that is not: the same rule, one level below.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.whitening import whitened
from align.groups import group_max, group_mean, group_min, group_std


def centred(
    values: Float[Tensor, "*shape"], pools: Int[Tensor, "*shape"], where: Bool[Tensor, "*shape"] | None = None
) -> Float[Tensor, "*shape"]:
    """Value minus the mean of its pool; 0 where the pool has no spread.

    Args:
        values: any unit.
        pools: equal ids are compared with each other.
        where: entries that count in the means; all if None. The others are compared with them, too.
    """
    flat, ids = values.flatten(), pools.flatten()
    counted = None if where is None else where.flatten()
    spread = group_max(flat, ids, counted) > group_min(flat, ids, counted)  # false, too, where nothing counts
    return torch.where(spread, flat - group_mean(flat, ids, counted), 0.0).reshape(values.shape)


def z_score(
    values: Float[Tensor, "*shape"],
    pools: Int[Tensor, "*shape"],
    where: Bool[Tensor, "*shape"] | None = None,
    *,
    unbiased: bool,
    eps: float,
) -> Float[Tensor, "*shape"]:
    """(value - mean) / (std + eps) within its pool; 0 where the pool has no spread.

    Args:
        values: any unit.
        pools: equal ids are compared with each other.
        where: entries that count in mean and std; all if None.
        unbiased: n - 1 (true) or n (false) under the root.
        eps: in the unit of the values, >= 0.
    """
    deviation = centred(values, pools, where)
    counted = None if where is None else where.flatten()
    std = group_std(values.flatten(), pools.flatten(), unbiased=unbiased, where=counted).reshape(values.shape)
    return torch.where(deviation == 0, 0.0, deviation / (std + eps))


def whiten(values: Float[Tensor, "n t"], where: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """(value - mean) / sqrt(variance + 1e-8) over the true positions of the batch, unbiased: the usual flavour."""
    return whitened(values, where, unbiased=True, eps=1e-8)
