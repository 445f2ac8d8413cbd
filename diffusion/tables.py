"""Results of `align evaluate` and `align score` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from diffusion.evaluate import Evaluation, diversity_gain, gain
from diffusion.score import Scores

if TYPE_CHECKING:
    from rich.table import Table

    from align.statistics import Interval


def base_table(base: Evaluation) -> Table:
    """Mean and 95 % interval of each reward, for all prompts and for each class."""
    table = _table("reward", "prompts", "pictures", "mean", "95 % interval")
    for reward, group, mean in _means(base):
        table.add_row(reward, group or "all", str(mean.n), f"{mean.mean:.3f}", _range(mean))
    return table


def gain_table(base: Evaluation, trained: Evaluation) -> Table:
    """Base, trained, and the gain over the same prompts and seeds with its paired 95 % interval."""
    table = _table("reward", "prompts", "pictures", "base", "trained", "gain", "95 % interval")
    for reward, group, mean in _means(base):
        change, after = gain(base, trained, reward, group), trained.mean(reward, group)
        if change is not None and after is not None:
            numbers = (f"{mean.mean:.3f}", f"{after.mean:.3f}", f"{change.mean:+.3f}", _range(change))
            table.add_row(reward, group or "all", str(change.n), *numbers)
    change = diversity_gain(base, trained)
    if change is not None:
        means = (f"{sum(values) / len(values):.3f}" for values in (base.diversity, trained.diversity))
        table.add_row("diversity", "all", str(len(base.rows)), *means, f"{change.mean:+.3f}", _range(change))
    return table


def score_table(scores: Scores) -> Table:
    """Mean and 95 % interval of each reward over a folder of pictures."""
    table = _table("reward", "pictures", "mean", "95 % interval")
    for name in scores.names:
        mean = scores.mean(name)
        table.add_row(name, *(("0", "–", "–") if mean is None else (str(mean.n), f"{mean.mean:.4g}", _range(mean))))
    return table


def _means(evaluation: Evaluation) -> Iterator[tuple[str, str | None, Interval]]:
    groups: Sequence[str | None] = (None, *evaluation.classes)
    for reward in evaluation.names:
        for group in groups:
            mean = evaluation.mean(reward, group)
            if mean is not None:
                yield reward, group, mean


def _range(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=number > 0)
    return table
