"""How two sets of advantages of the same samples differ. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_first, group_is_constant, group_max
from align.inspect.audit.measures import conflict, correlation, rank_correlation


class Change(NamedTuple):
    """What becomes of a step's signal.

    Attributes:
        samples: number of samples.
        flipped: share of them whose advantage changes sign.
        silenced: share whose advantage becomes 0.
        woken: share whose advantage was 0 and no longer is.
        reordered: of the pairs of samples of one prompt that both tell apart, the share in opposite order.
        other_best: of the prompts with a best sample in both, the share where it is another.
        correlation: of the advantages within prompts; NaN where one of them is 0 throughout.
        rank_correlation: the same of their ranks.
    """

    samples: int
    flipped: float
    silenced: float
    woken: float
    reordered: float
    other_best: float
    correlation: float
    rank_correlation: float


def compare(before: Float[Tensor, "n"], after: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Change:
    """Compare advantages sample by sample, and the order of the samples of each prompt.

    Args:
        before: advantages of the run, any unit.
        after: those of other settings; their unit may differ, so only signs, orders and correlations are looked at.
        group_ids: equal ids share a prompt.
    """
    return Change(
        samples=len(before),
        flipped=_mean(before * after < 0),
        silenced=_mean((before != 0) & (after == 0)),
        woken=_mean((before == 0) & (after != 0)),
        reordered=conflict(before, after, group_ids).rate,
        other_best=_other_best(before, after, group_ids),
        correlation=correlation(before, after, group_ids),
        rank_correlation=rank_correlation(before, after, group_ids),
    )


def shift(before: Float[Tensor, "n"], after: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """after / rms(after) - before / rms(before): how much more a sample is pushed up, in units of a typical push.

    0 where an advantage is 0 in both; a set of zeros counts as no push at all.
    """
    return _unit(after) - _unit(before)


def _unit(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    values = values.double()
    size = float(values.square().mean().sqrt()) if len(values) else 0.0
    return values / size if size > 0 else values


def _other_best(before: Float[Tensor, "n"], after: Float[Tensor, "n"], ids: Int[Tensor, "n"]) -> float:
    """A prompt counts where both tell its samples apart; it has another best one if no sample is best in both."""
    told = ~group_is_constant(before, ids) & ~group_is_constant(after, ids)
    both = (before.double() == group_max(before, ids)) & (after.double() == group_max(after, ids))
    prompts = told & group_first(ids)
    kept = group_max(both.double(), ids) > 0
    return _mean(~kept[prompts]) if prompts.any() else math.nan


def _mean(marks: Tensor) -> float:
    return float(marks.double().mean()) if len(marks) else math.nan
