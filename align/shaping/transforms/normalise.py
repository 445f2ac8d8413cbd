"""Transforms that compare a reward with others of its group or batch: z-scores, min-max, rank."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.normalise import EPS_MODES
from align.groups import Scope, group_is_constant, group_max, group_mean, group_min, group_size, group_std, scoped_ids
from align.order import group_median, group_rank
from align.shaping.transforms.column import check_column

MAD_TO_STD = 1.4826  # 1 / PhiInv(3/4): the standard deviation of a normal distribution over its median deviation


def zscore(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    scope: Scope = "group",
    unbiased: bool = True,
    eps: float = 1e-4,
    eps_mode: str = "add",
) -> Float[Tensor, "n"]:
    """Distance from the mean in standard deviations.

        z_i = (r_i - mean) / (std + eps),   or / max(std, eps) with `eps_mode="floor"`

    Exactly 0 where all scored rewards of the scope are one number, and for a reward that is alone.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: equal ids share a group.
        scope: mean and std of the sample's group, or of the whole batch. (Of the run: `running.RunningMoments`.)
        unbiased: n - 1 (true) or n (false) under the root.
        eps: in the unit of the rewards, >= 0.
        eps_mode: `add` or `floor`.

    References:
        Liu et al., "GDPO", arXiv:2601.05242: of each group and reward, n - 1 and + 1e-4 in TRL's form, which is the
        default here.
    """
    if eps < 0:
        raise ValueError(f"`eps` must not be negative, found {eps}.")
    if eps_mode not in EPS_MODES:
        raise ValueError(f"`eps_mode` must be one of {', '.join(EPS_MODES)}, found {eps_mode!r}.")
    check_column(values, group_ids)
    ids, scored = scoped_ids(group_ids, scope), ~values.isnan()
    constant = group_is_constant(values.detach(), ids)
    # The gradient of a root at 0 is infinite: constant groups and NaN are taken out in front of it, not only behind.
    inner = torch.where(scored & ~constant, values.double(), 0.0)
    std = group_std(inner, ids, unbiased=unbiased, where=scored)
    z = (inner - group_mean(inner, ids, where=scored)) / EPS_MODES[eps_mode](std, eps)
    return _finish(torch.where(constant, 0.0, z), scored, values)


def robust_zscore(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, scope: Scope = "batch"
) -> Float[Tensor, "n"]:
    """Distance from the median in median absolute deviations; a few outliers move nothing.

        z_i = (r_i - median) / (1.4826 median_j |r_j - median|)

    1.4826 makes it the z-score of normally distributed rewards. Where more than half of the scope is one number the
    spread is 0 and so is the result: there is no scale that could say how far the rest is.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: equal ids share a group.
        scope: the sample's group, or the whole batch.
    """
    check_column(values, group_ids)
    ids, scored = scoped_ids(group_ids, scope), ~values.isnan()
    deviation = torch.where(scored, values.double(), 0.0) - group_median(values, ids)
    spread = MAD_TO_STD * group_median(torch.where(scored, deviation.abs(), float("nan")), ids)
    z = deviation / torch.where(spread > 0, spread, 1.0)
    return _finish(torch.where(spread > 0, z, 0.0), scored, values)


def minmax(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    scope: Scope = "batch",
    low: float | None = None,
    high: float | None = None,
) -> Float[Tensor, "n"]:
    """Place between the smallest and the largest reward.

        u_i = (r_i - low) / (high - low),   1/2 where they coincide

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: equal ids share a group.
        scope: whose extremes, where `low` or `high` is not given.
        low: fixed lower end, in the unit of the rewards. With fixed ends the result may leave [0, 1].
        high: fixed upper end.

    Raises:
        ValueError: `low` is not below `high`.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError(f"minmax expects `low` below `high`, found {low} and {high}.")
    check_column(values, group_ids)
    ids, scored = scoped_ids(group_ids, scope), ~values.isnan()
    bottom = group_min(values, ids) if low is None else torch.full_like(values, low, dtype=torch.float64)
    top = group_max(values, ids) if high is None else torch.full_like(values, high, dtype=torch.float64)
    wide = scored & (top > bottom)
    width = torch.where(wide, top - bottom, 1.0)
    u = (torch.where(scored, values.double(), 0.0) - torch.where(wide, bottom, 0.0)) / width
    return _finish(torch.where(wide, u, 0.5), scored, values)


def rank(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, scope: Scope = "group") -> Float[Tensor, "n"]:
    """Relative rank; ties share the mean of their ranks.

        u_i = (rank_i - 1/2) / n        in (0, 1), mean 1/2, 1/2 for all where all are equal

    Immune to units and outliers, blind to how much better. No gradient: a rank is a step function.

    Args:
        values: rewards, any unit; NaN = not scored and not counted.
        group_ids: equal ids share a group.
        scope: rank among the sample's group, or the whole batch.
    """
    check_column(values, group_ids)
    ids, scored = scoped_ids(group_ids, scope), ~values.isnan()
    count = group_size(ids, where=scored).double()
    return _finish((group_rank(values, ids) - 0.5) / count.clamp(min=1.0), scored, values)


def _finish(result: Float[Tensor, "n"], scored: Bool[Tensor, "n"], like: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """NaN where nothing was scored, in the dtype of the input."""
    return torch.where(scored, result, float("nan")).to(like.dtype)
