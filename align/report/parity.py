"""Parity across user groups, before and after: the rows of its table, for the page and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from align.report import words
from align.report.records import Parity, Run

NUMBERS = (("mean of groups", "mean"), ("worst group", "worst"), ("20th percentile", "low"), ("Gini", "gini"))


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One number of one reward; a dash where there is none."""

    reward: str
    what: str
    before: str
    after: str


def parity_rows(run: Run) -> list[ParityRow]:
    """Mean, worst group, 20th percentile and Gini coefficient of each reward; then the mean of each group.

    Empty where the evaluation names no user groups. A run with one evaluation (of the base) has no "after".
    """
    if not run.evaluations or not run.evaluations[-1].parity:
        return []
    first, last = run.evaluations[0].parity, run.evaluations[-1].parity
    alone = len(run.evaluations) == 1
    rows: list[ParityRow] = []
    for reward, after in last.items():
        rows += _rows(reward, first.get(reward), None if alone else after)
    return rows


def _rows(reward: str, before: Parity | None, after: Parity | None) -> Iterator[ParityRow]:
    sides = (before, after)
    names = [None if side is None else _worst(side) for side in sides]
    for what, key in NUMBERS:
        cells = [words.DASH if side is None else _number(getattr(side, key)) for side in sides]
        if key == "worst":
            cells = [cell if name is None else f"{cell} ({name})" for cell, name in zip(cells, names, strict=True)]
        yield ParityRow(reward=reward, what=what, before=cells[0], after=cells[1])
    for group in dict.fromkeys(name for side in sides if side is not None for name in side.groups):
        cells = [
            words.DASH if side is None or group not in side.groups else _number(side.groups[group].mean)
            for side in sides
        ]
        yield ParityRow(reward=reward, what=f"group {group}", before=cells[0], after=cells[1])


def _number(value: float) -> str:
    """Three decimals, so that the numbers of a row compare; large ones as everywhere."""
    return f"{value:.3f}" if abs(value) < 10 else words.number(value)


def _worst(parity: Parity) -> str | None:
    """The group with the smallest mean."""
    means = {name: interval.mean for name, interval in parity.groups.items() if math.isfinite(interval.mean)}
    return min(means, key=lambda name: means[name]) if means else None
