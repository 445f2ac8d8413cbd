"""Combination by strict order of importance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.groups import group_codes, group_size
from align.order import group_rank
from align.shaping.combine.inputs import Weights, checked_weights

# A tolerance of 0.1 shall accept 0.9 beside 1.0 although float32 stores 0.8999999762.
SLACK = 1e-6


def lexicographic(
    values: Float[Tensor, "n k"],
    weights: Weights | None = None,
    *,
    order: Sequence[int] | None = None,
    tolerances: Sequence[float] = (),
    group_ids: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Rank within the group: by the first reward, among (nearly) equals by the second, and so on.

        best of a set: those within tol_1 of its best u_1; of these, those within tol_2 of their best u_2; ...
        they share the first place, are taken out, and the rest is ranked likewise;
        S_i = (rank_i - 1/2) / n        the best near 1, ties share their mean rank

    No weights can express a strict order, so no score in the unit of the rewards exists; the rank is one for training.

    Args:
        values: rewards; NaN in a ranked column leaves the sample unranked (NaN).
        weights: columns of weight 0 are ignored; otherwise only the default of `order` looks at them. None = all equal.
        order: columns, most important first. None: by falling weight, then from left to right.
        tolerances: one per ranked column, >= 0, in its unit; empty = 0. A tolerance is not transitive: 1.0 ~ 0.9 and
            0.9 ~ 0.8 do not make 1.0 ~ 0.8, hence the definition by sets.
        group_ids: equal ids share a group; None = one group.

    Raises:
        ValueError: a column twice or out of range, as many tolerances as no reward, a negative one.
    """
    columns = _columns(values, weights, order)
    slack = _tolerances(tolerances, columns)
    ids = torch.zeros(len(values), dtype=torch.int64, device=values.device) if group_ids is None else group_ids
    ranked = ~values[:, columns].isnan().any(dim=1)
    level = torch.full((len(values),), float("nan"), dtype=torch.float64, device=values.device)
    level[ranked] = -_levels(values[ranked][:, columns].double(), ids[ranked], slack)
    count = group_size(ids, where=ranked).double().clamp(min=1.0)
    return ((group_rank(level, ids) - 0.5) / count).to(values.dtype)


def _levels(values: Float[Tensor, "r c"], group_ids: Int[Tensor, "r"], slack: Sequence[float]) -> Float[Tensor, "r"]:
    """0 for the best set of each group, 1 for the best of the rest, ... All groups at once, one round per level."""
    if len(values) == 0:
        return values.new_zeros(0)
    codes, groups = group_codes(group_ids)
    place = codes.argsort(stable=True)
    count = torch.bincount(codes, minlength=groups)
    within = torch.arange(len(codes), device=codes.device) - (count.cumsum(0) - count)[codes[place]]
    width = int(count.max())
    table = values.new_zeros(groups, width, values.shape[1])
    table[codes[place], within] = values[place]
    left = torch.zeros(groups, width, dtype=torch.bool, device=values.device)
    left[codes[place], within] = True
    level = values.new_zeros(groups, width)
    number = 0
    while left.any():
        best = _best(table, left, slack)
        level = torch.where(best, float(number), level)
        left, number = left & ~best, number + 1
    found = values.new_zeros(len(codes))
    found[place] = level[codes[place], within]
    return found


def _best(table: Float[Tensor, "g m c"], left: Bool[Tensor, "g m"], slack: Sequence[float]) -> Bool[Tensor, "g m"]:
    """Of the rows that are left in each group, those that survive every reward in turn."""
    best = left
    for column, tolerance in zip(table.unbind(dim=2), slack, strict=True):
        top = torch.where(best, column, float("-inf")).amax(dim=1, keepdim=True)
        limit = tolerance + (SLACK * top.abs() if tolerance > 0 else 0.0)
        best = best & (top - column <= limit)
    return best


def _columns(values: Tensor, weights: Weights | None, order: Sequence[int] | None) -> list[int]:
    k = values.shape[1]
    heights = torch.ones(k) if weights is None else checked_weights(values, weights, signed=True).mean(dim=0)
    if order is None:
        order = torch.argsort(heights, descending=True, stable=True).tolist()
    if len(set(order)) < len(order) or any(not 0 <= column < k for column in order):
        raise ValueError(f"`order` must name columns 0 to {k - 1}, each at most once, found {list(order)}.")
    columns = [column for column in order if heights[column] != 0]
    if not columns:
        raise ValueError("lexicographic needs a reward with a weight other than 0 in `order`.")
    return columns


def _tolerances(tolerances: Sequence[float], columns: Sequence[int]) -> Sequence[float]:
    given = tuple(tolerances) or (0.0,) * len(columns)
    if len(given) != len(columns) or any(not tolerance >= 0 for tolerance in given):
        raise ValueError(
            f"expected {len(columns)} tolerances of 0 or more, one per ranked reward, found {list(tolerances)}."
        )
    return given
