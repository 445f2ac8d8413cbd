"""Numbers about rewards of the same samples. Pure: tensors in, numbers out; NaN is a missing score.

An estimator compares the samples of one prompt, so what matters is how rewards differ *within* a prompt. The same
functions say how they differ overall, if all rows are given one group id (`align.groups.scoped_ids`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_codes, group_is_constant, group_mean
from align.shaping.describe import frac_zero_std
from align.shaping.transforms import rank

BLOCK = 512
"""Rows that are compared with all of their group at once."""
EXACT = 1e-9
"""Share of a reward's variance below which the others explain all of it."""


def correlation(first: Float[Tensor, "n"], second: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """Correlation of the deviations from the group's mean, all groups together (Pearson).

        r = sum_i d_i e_i / sqrt( sum_i d_i^2 sum_i e_i^2 ),    d_i = x_i - mean_g x,  e_i = y_i - mean_g y

    Args:
        first: x, any unit; rows without one of the two are left out.
        second: y.
        group_ids: equal ids share a prompt.

    Returns:
        In [-1, 1]; NaN where one of them is the same for all samples of every prompt.
    """
    both = ~(first.isnan() | second.isnan())
    x, y = (_deviations(values[both], group_ids[both]) for values in (first, second))
    scale = math.sqrt(float(x.square().sum())) * math.sqrt(float(y.square().sum()))
    return max(-1.0, min(1.0, float((x * y).sum()) / scale)) if scale > 0 else math.nan


def rank_correlation(first: Float[Tensor, "n"], second: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """`correlation` of the relative ranks (rank - 1/2) / n_g within the group, ties sharing theirs (Spearman)."""
    both = ~(first.isnan() | second.isnan())
    ids = group_ids[both]
    return correlation(rank(first[both].double(), ids), rank(second[both].double(), ids), ids)


class Conflict(NamedTuple):
    """How often two rewards want opposite things.

    Attributes:
        rate: of the pairs of samples of one prompt that both rewards tell apart, the share in opposite order.
        decided: number of such pairs.
        pairs: number of all pairs of samples of one prompt that both have scored.
    """

    rate: float
    decided: int
    pairs: int


def conflict(first: Float[Tensor, "n"], second: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Conflict:
    """Pairs (i, j) of one prompt with (x_i - x_j) (y_i - y_j) < 0, as a share of those where it is not 0.

    1/2 is what two rewards that have nothing to do with each other have.
    """
    both = ~(first.isnan() | second.isnan())
    against = decided = pairs = 0
    for rows in _groups(group_ids[both]):
        x, y = first[both][rows].double(), second[both][rows].double()
        for block in torch.arange(len(rows)).split(BLOCK):
            later = torch.arange(len(rows)) > block.unsqueeze(1)  # every pair once
            signs = torch.sign(x[block].unsqueeze(1) - x) * torch.sign(y[block].unsqueeze(1) - y)
            against += int(((signs < 0) & later).sum())
            decided += int(((signs != 0) & later).sum())
            pairs += int(later.sum())
    return Conflict(against / decided if decided else math.nan, decided, pairs)


class Noise(NamedTuple):
    """How much of a reward's spread is chance.

    Attributes:
        sd: standard deviation of one scoring around the sample's mean score, in the unit of the reward.
        spread: standard deviation within a prompt of the first scoring, same unit.
        share: sd^2 / spread^2, of the variance within a prompt; NaN where there is no spread.
    """

    sd: float
    spread: float
    share: float


def noise(first: Float[Tensor, "n"], again: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Noise:
    """The noise floor, from scoring the same samples twice.

        sd^2 = mean_i (x_i - x'_i)^2 / 2

    Two independent scorings differ by twice the variance of one, hence the 2.

    Args:
        first: x, any unit.
        again: x', the same samples scored once more.
        group_ids: equal ids share a prompt.
    """
    difference = (first - again)[~(first.isnan() | again.isnan())].double()
    sd = math.sqrt(float(difference.square().mean()) / 2) if len(difference) else math.nan
    spread = spread_within(first, group_ids)
    return Noise(sd, spread, sd**2 / spread**2 if spread > 0 else math.nan)


def spread_within(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """Standard deviation within a prompt, all prompts together: sqrt( sum_i (x_i - mean_g)^2 / sum_g (n_g - 1) ).

    NaN where no prompt has two scores.
    """
    scored = ~values.isnan()
    ids = group_ids[scored]
    freedom = len(ids) - len(ids.unique())
    return math.sqrt(float(_deviations(values[scored], ids).square().sum()) / freedom) if freedom else math.nan


class Saturation(NamedTuple):
    """Where a reward has no room left.

    Attributes:
        at_min: share of the scored samples that have the smallest score of all.
        at_max: share of the scored samples that have the largest.
        constant_groups: of the prompts with two scores or more, the share on which all are the same.
        unscored: share of the samples without a score.
    """

    at_min: float
    at_max: float
    constant_groups: float
    unscored: float


def saturation(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Saturation:
    """Shares at the ends of what was seen; NaN where nothing was scored."""
    scored = values[~values.isnan()].double()
    unscored = 1.0 - len(scored) / max(len(values), 1)
    if len(scored) == 0:
        return Saturation(math.nan, math.nan, math.nan, unscored)
    at_min, at_max = (float((scored == end).double().mean()) for end in (scored.min(), scored.max()))
    return Saturation(at_min, at_max, frac_zero_std(values, group_ids), unscored)


def variance_inflation(values: Float[Tensor, "n k"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "k"]:
    """Variance inflation factors of the deviations from the group's mean: what counts twice.

        VIF_k = 1 / (1 - R_k^2),    R_k^2: share of reward k's variance that a linear fit of the others explains

    1 = nothing in common with the others; 5 = four fifths of it are in them already; infinite = all of it.

    Args:
        values: rewards, any units; rows without one of them are left out.
        group_ids: equal ids share a prompt.

    Returns:
        float64; NaN for a reward that is constant within every prompt, and for all where rows are too few for a fit.

    References:
        Belsley, Kuh and Welsch, "Regression Diagnostics", 1980, chapter 3.
    """
    complete = ~values.isnan().any(dim=1)
    ids = group_ids[complete]
    deviations = torch.stack([_deviations(column, ids) for column in values[complete].unbind(dim=1)], dim=1)
    total = deviations.square().sum(dim=0)
    varies = total > 0
    factors = torch.full((values.shape[1],), float("nan"), dtype=torch.float64)
    freedom = len(ids) - len(ids.unique()) - int(varies.sum())
    if freedom < 1:
        return factors
    unit = deviations[:, varies] / total[varies].sqrt()
    for place, k in enumerate(varies.nonzero().flatten().tolist()):
        left = 1.0 - _explained(unit[:, place], torch.cat([unit[:, :place], unit[:, place + 1 :]], dim=1))
        factors[k] = 1.0 / left if left > EXACT else math.inf
    return factors


def _explained(target: Float[Tensor, "n"], others: Float[Tensor, "n m"]) -> float:
    """R^2 of a fit without intercept; the target has length 1. Columns that are multiples of others do no harm."""
    if others.shape[1] == 0:
        return 0.0
    basis, sizes, _ = torch.linalg.svd(others, full_matrices=False)
    return min(1.0, float((basis[:, sizes > EXACT * sizes.max()].T @ target).square().sum()))


def _deviations(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """x - mean_g x, exactly 0 in a group whose values are one stored number."""
    values = values.double()
    if len(values) == 0:
        return values
    return torch.where(group_is_constant(values, group_ids), 0.0, values - group_mean(values, group_ids))


def _groups(group_ids: Int[Tensor, "n"]) -> Iterator[Int[Tensor, "g"]]:
    """Rows of each group."""
    if len(group_ids) == 0:
        return
    codes, count = group_codes(group_ids)
    order = codes.argsort(stable=True)
    yield from order.split(torch.bincount(codes, minlength=count).tolist())
