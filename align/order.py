"""Rank and quantile within groups of equal integer ids: what `align/groups.py` is for sums, for sorted values.

As there: one entry per sample, NaN left out of every statistic, float64 inside.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_codes


def group_rank(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Rank of each value in its group, from 1; equal values share the mean of their ranks; NaN for NaN.

    Args:
        values: any unit; NaN is not ranked.
        group_ids: equal ids share a group.

    Returns:
        float64; 1, 2, ... or halves between them.
    """
    places, codes, count = _sorted_places(values, group_ids)
    ranks = torch.full((len(values),), float("nan"), dtype=torch.float64, device=values.device)
    if len(places) == 0:
        return ranks
    ordered, within = values.detach().double()[places], _position_in_group(codes, count)
    new_run = torch.ones_like(codes, dtype=torch.bool)
    new_run[1:] = (codes[1:] != codes[:-1]) | (ordered[1:] != ordered[:-1])
    run = new_run.cumsum(0) - 1
    sums = torch.zeros(int(run[-1]) + 1, dtype=torch.float64, device=values.device)
    means = sums.index_add(0, run, within.double()) / sums.index_add(0, run, torch.ones_like(ordered))
    ranks[places] = means[run] + 1
    return ranks


def group_quantile(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], q: float) -> Float[Tensor, "n"]:
    """Quantile of each sample's group with linear interpolation; NaN for a group without a value.

        position h = (count - 1) q,   x_floor(h) + (h - floor(h)) (x_ceil(h) - x_floor(h))

    Args:
        values: any unit; NaN is left out.
        group_ids: equal ids share a group.
        q: in [0, 1]; 0.5 is the median.

    Returns:
        float64, in the unit of `values`.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"`q` must be between 0 and 1, found {q}.")
    places, _, count = _sorted_places(values, group_ids)
    all_codes = group_codes(group_ids)[0]
    if len(places) == 0:
        return torch.full((len(values),), float("nan"), dtype=torch.float64, device=values.device)
    ordered = values.double()[places]
    start = count.cumsum(0) - count
    position = (count - 1).clamp(min=0).double() * q
    low = position.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0))
    last = len(ordered) - 1  # an empty group at the end points behind the values; it is set to NaN below
    below, above = ordered[(start + low).clamp(max=last)], ordered[(start + high).clamp(max=last)]
    quantile = torch.where(count > 0, below + (position - low) * (above - below), float("nan"))
    return quantile[all_codes]


def group_median(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Median of each sample's group; the mean of the two middle values of an even number."""
    return group_quantile(values, group_ids, 0.5)


def _sorted_places(values: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the values that are no NaN, by group and then by value; their group codes; values per group."""
    codes, groups = group_codes(group_ids)
    scored = (~values.isnan()).nonzero().flatten()
    by_value = scored[values.detach()[scored].argsort(stable=True)]
    places = by_value[codes[by_value].argsort(stable=True)]
    count = torch.bincount(codes[places], minlength=groups)
    return places, codes[places], count


def _position_in_group(codes: Tensor, count: Tensor) -> Tensor:
    start = count.cumsum(0) - count
    return torch.arange(len(codes), device=codes.device) - start[codes]


def spearman(first: Float[Tensor, "n"], second: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Rank correlation of two columns over the rows that have both: Pearson's, of ranks with ties shared.

    Returns:
        float64 in [-1, 1]; NaN where a column is constant or fewer than two rows have both.
    """
    both = ~(first.isnan() | second.isnan())
    one_group = torch.zeros(int(both.sum()), dtype=torch.int64, device=first.device)
    ranks = [group_rank(column[both], one_group) for column in (first, second)]
    a, b = (column - column.mean() if len(column) else column for column in ranks)
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return torch.where(scale > 0, (a * b).sum() / scale.clamp(min=torch.finfo(torch.float64).tiny), torch.nan)
