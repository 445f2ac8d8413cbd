"""Held-out rewards before and after: differences of the same prompts and seeds, with intervals.

Both evaluations draw the same prompts from the same noise, so row i before and row i after are a pair. The interval of
the mean *difference* is narrower than two separate intervals suggest, and is the one that says whether training helped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from align.report.records import Evaluation, EvaluationRow, Interval

ROUNDING = 1e-6  # rewards travel as float32: a difference below this share of the largest one is none
ALL = "all"  # the group name that stands for every held-out row


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One reward, one group of prompts, first and last evaluation.

    Attributes:
        reward: the reward's name.
        group: class of prompts, or "all".
        before: mean and 95 % interval at the first evaluation.
        after: the same at the last one.
        difference: mean of (after - before) over the pairs, with its paired 95 % interval.
        is_rate: whether every row scored 0 or 1, so that the mean is a success rate.
    """

    reward: str
    group: str
    before: Interval
    after: Interval
    difference: Interval
    is_rate: bool


def gains(before: Evaluation, after: Evaluation) -> list[Gain]:
    """Every reward over all rows, then over each class of prompts, in the order of the later evaluation."""
    pairs = pair_rows(before.rows, after.rows)
    found = [
        _gain(name, ALL, before.rewards[name], after.rewards[name], pairs)
        for name in after.rewards
        if name in before.rewards
    ]
    if set(after.classes) <= {ALL}:
        return found
    for group, rewards in after.classes.items():
        earlier = before.classes.get(group, {})
        of_group = [(one, two) for one, two in pairs if two.group == group]
        found += [_gain(name, group, earlier[name], rewards[name], of_group) for name in rewards if name in earlier]
    return found


def pair_rows(
    before: Sequence[EvaluationRow], after: Sequence[EvaluationRow]
) -> list[tuple[EvaluationRow, EvaluationRow]]:
    """Rows of the same prompt and seed. Equal lists pair by position, so a prompt may stand in them twice."""
    if [_key(row) for row in before] == [_key(row) for row in after]:
        return list(zip(before, after, strict=True))
    earlier = {_key(row): row for row in before}
    return [(earlier[_key(row)], row) for row in after if _key(row) in earlier]


def _key(row: EvaluationRow) -> tuple[str, str, int]:
    return row.prompt, row.group, row.seed


def _gain(
    name: str, group: str, before: Interval, after: Interval, pairs: Sequence[tuple[EvaluationRow, EvaluationRow]]
) -> Gain:
    scored = [
        (before_value, after_value, row.prompt)
        for row_before, row in pairs
        if math.isfinite(before_value := row_before.rewards.get(name, math.nan))
        and math.isfinite(after_value := row.rewards.get(name, math.nan))
    ]
    return Gain(
        reward=name,
        group=group,
        before=before,
        after=after,
        difference=_difference(scored),
        is_rate=bool(scored) and all(value in (0.0, 1.0) for *values, _ in scored for value in values),
    )


def _difference(scored: Sequence[tuple[float, float, str]]) -> Interval:
    """Mean and interval of after - before; prompts are drawn, not pictures: those of one prompt resemble each other."""
    if not scored:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=0)
    before, after, prompts = zip(*scored, strict=True)
    smallest = ROUNDING * max(map(abs, (*before, *after)))
    mean = _exact_zero(sum(after) / len(after) - sum(before) / len(before), smallest)
    if len(scored) < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, n=1)
    from align.statistics import paired_bootstrap_interval

    clusters = prompts if len(set(prompts)) > 1 else None  # of a single prompt, the seeds are all there is to draw from
    interval = paired_bootstrap_interval(before, after, clusters=clusters)
    low, high = (_exact_zero(end, smallest) for end in (interval.low, interval.high))
    return Interval(mean=mean, low=low, high=high, n=len(scored))


def _exact_zero(value: float, smallest: float) -> float:
    """The value, or 0 where it is a rounding error of 0: an end at -1e-9 must not pass for a loss."""
    return 0.0 if abs(value) < smallest else value
