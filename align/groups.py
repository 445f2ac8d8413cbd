"""Count, mean, standard deviation, extremes and ranks within groups of equal integer ids.

Every advantage estimator stands on this file. Groups are int64 ids: any values, interleaved, of unequal size. A result
has one entry per *sample* (the number of its group): `values - group_mean(values, group_ids)` needs no join.

* A NaN value is left out of every statistic, as is a sample whose `where` is false. It still gets its group's number.
* Everything is computed in float64: in float32 the deviations of fifteen equal rewards of 98.3 are not zero.
* The whole batch is one group: `scoped_ids(group_ids, "batch")`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scope: TypeAlias = Literal["group", "batch"]


def scoped_ids(group_ids: Int[Tensor, "n"], scope: Scope) -> Int[Tensor, "n"]:
    """Ids over which a statistic is taken: the groups themselves, or one group that holds the whole batch."""
    if scope not in ("group", "batch"):
        raise ValueError(f"scope must be 'group' or 'batch', found {scope!r}.")
    return group_ids if scope == "group" else torch.zeros_like(group_ids)


def group_codes(group_ids: Int[Tensor, "n"]) -> tuple[Int[Tensor, "n"], int]:
    """Dense codes 0 .. groups - 1 in the order of the ids, and the number of groups."""
    check_ids(group_ids)
    spread = _spread(group_ids)
    if spread is None:
        unique, codes = torch.unique(group_ids, return_inverse=True)
        return codes, unique.numel()
    slots, slot_count = spread
    codes = _taken(slots, slot_count).cumsum(dim=0) - 1  # of each slot; a sort would cost several times as much
    return codes.index_select(0, slots), int(codes[-1]) + 1


def group_count(group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None) -> int:
    """Number of groups with a member where `where` is true."""
    chosen = group_ids if where is None else group_ids[where]
    return int(_taken(*_slots(chosen)).sum())


def group_size(group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None) -> Int[Tensor, "n"]:
    """Number of members of each sample's group, counting those where `where` is true."""
    slots, slot_count = _slots(group_ids)
    counted = torch.ones_like(slots) if where is None else where.to(slots.dtype)
    return _sum_by_slot(counted, slots, slot_count).index_select(0, slots)


def group_mean(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """Mean of each sample's group; NaN for a group without a value.

    Args:
        values: one number per sample, any unit; NaN is left out.
        group_ids: equal ids share a group.
        where: samples that count; all if None.

    Returns:
        float64, in the unit of `values`.
    """
    slots, slot_count = _slots(group_ids)
    return _mean_by_slot(values.double(), _counted(values, where), slots, slot_count).index_select(0, slots)


def group_std(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    unbiased: bool = True,
    where: Bool[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Standard deviation of each sample's group, in two passes.

        std = sqrt( sum_i (x_i - mean)^2 / (count - 1) )      unbiased
        std = sqrt( sum_i (x_i - mean)^2 / count )            population

    Args:
        values: one number per sample, any unit; NaN is left out.
        group_ids: equal ids share a group.
        unbiased: divide by count - 1 (true) or by count (false). At four samples they differ by 15 %.
        where: samples that count; all if None.

    Returns:
        float64, in the unit of `values`; 0 where a group has too few values to have a spread.
    """
    slots, slot_count = _slots(group_ids)
    values, counted = values.double(), _counted(values, where)
    deviations = values - _mean_by_slot(values, counted, slots, slot_count).index_select(0, slots)
    squares = _sum_by_slot(torch.where(counted, deviations.square(), 0.0), slots, slot_count)
    divisor = _sum_by_slot(counted.double(), slots, slot_count) - float(unbiased)
    return (squares / divisor.clamp(min=1.0)).sqrt().index_select(0, slots)


def group_min(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """Smallest value of each sample's group, float64; +inf for a group without a value."""
    return _extreme(values, group_ids, where, "amin", float("inf"))


def group_max(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """Largest value of each sample's group, float64; -inf for a group without a value."""
    return _extreme(values, group_ids, where, "amax", float("-inf"))


def group_is_constant(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"] | None = None
) -> Bool[Tensor, "n"]:
    """Whether all values of a sample's group are one stored number: max == min, never "std is small".

    A group without a value is not constant; a group with one value is.
    """
    return group_max(values, group_ids, where) == group_min(values, group_ids, where)


def group_rank(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Place of each value in its group, ascending: 0, 1, ... Ties keep the order of the input; NaN comes last."""
    slots, _ = _slots(group_ids)
    by_value = values.argsort(stable=True)
    order = by_value[slots[by_value].argsort(stable=True)]  # by group, then by value, then by place
    starts = group_min(torch.arange(len(order), device=values.device).double(), slots[order]).long()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=values.device) - starts
    return ranks


def group_first(group_ids: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """True at the first member of each group: picks one entry per group out of numbers per sample."""
    places = torch.arange(len(group_ids), device=group_ids.device)
    return group_min(places.double(), group_ids).long() == places


def check_ids(group_ids: Tensor) -> None:
    """Raise a ValueError unless the ids are integers."""
    if group_ids.is_floating_point() or group_ids.is_complex() or group_ids.dtype == torch.bool:
        raise ValueError(
            f"group_ids must be integers, found {group_ids.dtype}. Ids above 2^24 collide in float32: "
            "build them as int64 and never carry them through a float tensor."
        )


def _slots(group_ids: Tensor) -> tuple[Tensor, int]:
    """A small non-negative number per group, gaps allowed, so that nearly dense ids need no sorting."""
    check_ids(group_ids)
    if group_ids.numel() == 0:
        return group_ids.long(), 0
    return _spread(group_ids) or group_codes(group_ids)


def _spread(group_ids: Tensor) -> tuple[Tensor, int] | None:
    """Distance of each id from the smallest, and how many there can be; None if that is far more than there are ids."""
    if group_ids.numel() == 0:
        return None
    low, high = (int(bound) for bound in group_ids.aminmax())
    return (group_ids.long() - low, high - low + 1) if high - low < 2 * group_ids.numel() else None


def _taken(slots: Tensor, slot_count: int) -> Tensor:
    """1 for every slot that has a member, int64."""
    return slots.new_zeros(slot_count).index_fill_(0, slots, 1)


def _counted(values: Tensor, where: Tensor | None) -> Tensor:
    valid = ~values.isnan()
    return valid if where is None else valid & where


def _sum_by_slot(values: Tensor, slots: Tensor, slot_count: int) -> Tensor:
    return torch.zeros(slot_count, dtype=values.dtype, device=values.device).index_add_(0, slots, values)


def _mean_by_slot(values: Tensor, counted: Tensor, slots: Tensor, slot_count: int) -> Tensor:
    total = _sum_by_slot(torch.where(counted, values, 0.0), slots, slot_count)
    return total / _sum_by_slot(counted.double(), slots, slot_count)


def _extreme(
    values: Tensor, group_ids: Tensor, where: Tensor | None, reduce: Literal["amin", "amax"], empty: float
) -> Tensor:
    slots, slot_count = _slots(group_ids)
    values = values.double()
    counted = _counted(values, where)
    values = values if counted.all() else torch.where(counted, values, empty)
    start = torch.full((slot_count,), empty, dtype=torch.float64, device=values.device)
    return start.scatter_reduce(0, slots, values, reduce).index_select(0, slots)
