"""Transforms that look at one number at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import Scope, group_mean, group_std, scoped_ids
from align.shaping.transforms.column import check_column, check_scale


def identity(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The reward as it is."""
    check_column(values, group_ids)
    return values


def affine(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, scale: float = 1.0, shift: float = 0.0
) -> Float[Tensor, "n"]:
    """A change of unit: scale * r + shift. With a negative scale a cost becomes a reward.

    Raises:
        ValueError: scale 0, which would make every reward equal.
    """
    check_column(values, group_ids)
    if scale == 0:
        raise ValueError("`scale` must not be 0: every reward would be the same. Give the reward weight 0 instead.")
    return (scale * values.double() + shift).to(values.dtype)


def clip(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    low: float | None = None,
    high: float | None = None,
    stds: float | None = None,
    scope: Scope = "group",
    unbiased: bool = True,
) -> Float[Tensor, "n"]:
    """The reward limited to an interval.

        min(max(r, low), high),   or between mean - stds * std and mean + stds * std of the scope

    Only `high` is a ceiling: what is more than good enough earns nothing more, so that it cannot be bought with
    something else. It is also the soft constraint -lambda relu(high - r), up to a constant.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: equal ids share a group.
        low: smallest value; None = no limit.
        high: largest value; None = no limit.
        stds: half-width in standard deviations, > 0; None = no such limit. With `low` or `high` both hold.
        scope: whose mean and standard deviation.
        unbiased: n - 1 (true) or n (false) under the root.

    Raises:
        ValueError: no limit at all, `low` above `high`, or `stds` not above 0.
    """
    if low is None and high is None and stds is None:
        raise ValueError("clip expects `low`, `high` or `stds`, found none of them.")
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip expects `low` at most `high`, found {low} and {high}.")
    if stds is not None and not stds > 0:
        raise ValueError(f"`stds` must be above 0, found {stds}.")
    check_column(values, group_ids)
    clipped = values.double()
    if stds is not None:
        ids, constant = scoped_ids(group_ids, scope), values.detach()
        centre, half = group_mean(constant, ids), stds * group_std(constant, ids, unbiased=unbiased)
        clipped = clipped.clamp(centre - half, centre + half)
    if low is not None or high is not None:
        clipped = clipped.clamp(low, high)
    return clipped.to(values.dtype)


def tanh(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, center: float = 0.0, scale: float = 1.0
) -> Float[Tensor, "n"]:
    """tanh((r - center) / scale): bounded on both sides. Unlike `lsc` it gives up on very bad samples, too.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: not looked at.
        center: reward that becomes 0.
        scale: unit of distance, > 0.
    """
    check_column(values, group_ids)
    check_scale(scale)
    return torch.tanh((values.double() - center) / scale).to(values.dtype)


def threshold(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, at_least: float) -> Float[Tensor, "n"]:
    """1 where r >= at_least, otherwise 0; NaN stays NaN: not scored is not failed."""
    check_column(values, group_ids)
    return torch.where(values.isnan(), values, (values >= at_least).to(values.dtype))


def log_prob(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, eps: float = 1e-6) -> Float[Tensor, "n"]:
    """log(min(max(p, eps), 1)) of a reward that is a probability; their sum is the log of "all of it is good".

    Args:
        values: probabilities; NaN = not scored.
        group_ids: not looked at.
        eps: smaller probabilities count as this one, in (0, 1).
    """
    check_column(values, group_ids)
    if not 0 < eps < 1:
        raise ValueError(f"`eps` must be between 0 and 1, found {eps}.")
    return values.double().clamp(eps, 1.0).log().to(values.dtype)
