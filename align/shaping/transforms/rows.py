"""Transforms that look at another number of the same sample: gate, length penalty; and filling in what is missing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_mean, group_min, group_std
from align.shaping.transforms.column import check_column


def gate(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    on: Float[Tensor, "n"],
    at_least: float | None = None,
    at_most: float | None = None,
    floor: float | None = None,
) -> Float[Tensor, "n"]:
    """The reward where another one is good enough, its floor elsewhere ("conditioned reward").

        u_i = r_i  if  at_least <= c_i <= at_most,   else floor

    It stands in front of every group statistic: a hard reward must be earned before an easy one counts.

    Args:
        values: the gated reward; NaN = not scored.
        group_ids: equal ids share a prompt.
        on: c, the raw value of the deciding reward; NaN makes the sample unscored: unknown is not failed.
        at_least: smallest c that passes; None = no such limit.
        at_most: largest c that passes (for a cost); None = no such limit.
        floor: value of those that fail. None takes 0 in groups whose values are all 0 or more, otherwise the group's
            minimum minus its standard deviation: with a 0 for failing, samples with a negative reward would do better
            by failing.

    Raises:
        ValueError: no limit is given.

    References:
        Liu et al., "GDPO", arXiv:2601.05242, conditioned rewards. The floor is ours.
    """
    if at_least is None and at_most is None:
        raise ValueError("gate expects `at_least` or `at_most`, found neither.")
    check_column(values, group_ids)
    passed = torch.ones_like(on, dtype=torch.bool)
    if at_least is not None:
        passed &= on >= at_least
    if at_most is not None:
        passed &= on <= at_most
    bottom = _floor(values, group_ids) if floor is None else torch.full_like(values, floor)
    gated = torch.where(passed | values.isnan(), values, bottom)
    return torch.where(on.isnan(), float("nan"), gated)


def length_penalty(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    lengths: Float[Tensor, "n"] | Int[Tensor, "n"],
    free: float,
    per_unit: float,
) -> Float[Tensor, "n"]:
    """r - c max(0, length - L).

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: not looked at.
        lengths: of the samples, in tokens, characters or bytes; NaN makes the sample unscored.
        free: L, length that costs nothing.
        per_unit: c, reward lost per unit beyond it.
    """
    check_column(values, group_ids)
    if free < 0 or per_unit < 0:
        raise ValueError(f"`free` and `per_unit` must not be negative, found {free} and {per_unit}.")
    excess = (lengths.double() - free).clamp(min=0.0)
    return (values.double() - per_unit * excess).to(values.dtype)


def impute(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Missing rewards become the mean of the scored ones of the group; NaN stays where the group has none."""
    check_column(values, group_ids)
    return torch.where(values.isnan(), group_mean(values, group_ids).to(values.dtype), values)


def _floor(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    smallest = group_min(values.detach(), group_ids)
    return torch.where(smallest >= 0, 0.0, smallest - group_std(values.detach(), group_ids)).to(values.dtype)
