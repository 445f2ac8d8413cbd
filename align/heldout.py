"""A held-out evaluation as a record: rows with their numbers, means with intervals, gains between two of them.

Both branches evaluate the same rows at every step of every run, so that any two evaluations are paired row by row.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from align.errors import AlignError, did_you_mean
from align.inspect.parity import group_means, parity
from align.statistics import Interval, bootstrap_mean_interval, paired_bootstrap_interval

ALL = "all"
"""The class of prompts whose file has no column `class`."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedRow:
    """One sample: which prompt and seed, and what the rewards say.

    Attributes:
        number: place in the evaluation, the same in each.
        rewards: by name, higher is better; None where unscored.
        completion: the text that was sampled, None for pictures and for rows that are only scored.
        user_group: whom the prompt stands for, where a column says so; None where none does.
    """

    number: int
    prompt: str
    group: str
    seed: int
    rewards: Mapping[str, float | None]
    completion: str | None = None
    user_group: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row in a record."""
        record = {"prompt": self.prompt, "class": self.group, "seed": self.seed, "rewards": dict(self.rewards)}
        more = {"completion": self.completion, "user_group": self.user_group}
        return {**record, **{name: value for name, value in more.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class HeldoutRows:
    """All rows of an evaluation.

    Attributes:
        step: finished training steps.
        weights: "ema" or "raw".
        rows: in order of `number`.
        figures: numbers of the evaluation as a whole, by the end of their name in the log.
    """

    step: int
    weights: str
    rows: Sequence[EvaluatedRow]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.rewards))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of prompts, in order of appearance."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def mean(self, name: str, group: str | None = None) -> Interval | None:
        """Mean of a reward with its interval, of all rows or of one class; None where nothing was scored.

        Prompts are drawn, not samples: samples of one prompt resemble each other.
        """
        return _mean([row for row in self.rows if group in (None, row.group)], name)

    def parity(self) -> dict[str, dict[str, Any]]:
        """Reward -> how alike its means are across user groups (`align.inspect.parity`), and each group's mean.

        Empty where prompts stand for nobody in particular, or all for the same group.
        """
        groups = tuple(dict.fromkeys(row.user_group for row in self.rows if row.user_group is not None))
        if len(groups) < 2:
            return {}
        rows = [row for row in self.rows if row.user_group is not None]
        ids = torch.tensor([groups.index(str(row.user_group)) for row in rows])
        found = {}
        for name in self.names:
            scores = [row.rewards.get(name) for row in rows]
            means = group_means(torch.tensor([math.nan if one is None else one for one in scores]).double(), ids)
            if len(means):
                intervals = {group: _mean([row for row in rows if row.user_group == group], name) for group in groups}
                of_groups = {group: interval._asdict() for group, interval in intervals.items() if interval is not None}
                numbers = {key: known(value) for key, value in parity(means)._asdict().items()}
                found[name] = {**numbers, "groups": of_groups}
        return found

    def metrics(self) -> dict[str, float]:
        """`eval/<reward>/mean`, `eval/<reward>/<class>` and `eval/<figure>`, without intervals."""
        metrics = {}
        for name in self.names:
            for key, group in [("mean", None), *((group, group) for group in self.classes)]:
                values = [row.rewards.get(name) for row in self.rows if group in (None, row.group)]
                scored = [value for value in values if value is not None]
                if scored:
                    metrics[f"eval/{name}/{key}"] = sum(scored) / len(scored)
        return {**metrics, **{f"eval/{name}": value for name, value in self.figures.items()}}

    def as_json(self) -> dict[str, Any]:
        """The record of `evaluations/step_XXXXXX.json`."""
        figures = {name: known(value) for name, value in self.figures.items()}
        across = self.parity()
        return {
            "step": self.step,
            "weights": self.weights,
            "rewards": self._intervals(None),
            "classes": {group: self._intervals(group) for group in self.classes},
            **({"figures": figures} if figures else {}),
            **({"parity": across} if across else {}),
            "rows": [row.as_json() for row in self.rows],
        }

    def _intervals(self, group: str | None) -> dict[str, dict[str, float]]:
        intervals = {name: self.mean(name, group) for name in self.names}
        return {name: value._asdict() for name, value in intervals.items() if value is not None}


def gain(before: HeldoutRows, after: HeldoutRows, name: str, group: str | None = None) -> Interval | None:
    """Mean gain of a reward over the same prompts and seeds, with its paired interval; None where no pair was scored.

    Raises:
        ValueError: the evaluations are of other prompts or seeds.
    """
    if [(row.prompt, row.seed) for row in before.rows] != [(row.prompt, row.seed) for row in after.rows]:
        raise ValueError(
            "expected two evaluations of the same prompts and seeds, in the same order; found different rows."
        )
    pairs = [
        (earlier, later, old.prompt)
        for old, new in zip(before.rows, after.rows, strict=True)
        if group in (None, old.group)
        and (earlier := old.rewards.get(name)) is not None
        and (later := new.rewards.get(name)) is not None
    ]
    if not pairs:
        return None
    olds, news, prompts = zip(*pairs, strict=True)
    return paired_bootstrap_interval(olds, news, clusters=prompts)


def user_groups(columns: Mapping[str, Sequence[Any]], name: str | None, rows: int) -> list[str | None]:
    """The user group of each row of a prompt file; None for all where no column is named.

    Args:
        columns: of the prompts.
        name: `evaluation.group_column`.
        rows: how many there are.

    Raises:
        AlignError: the prompts have no such column.
    """
    if name is None:
        return [None] * rows
    if name not in columns:
        raise AlignError(
            f"the held-out prompts have no column `{name}` (`evaluation.group_column`).{did_you_mean(name, columns)}",
            f"Their columns: {', '.join(columns) or 'none'}. Add it to the file, or leave the setting out.",
        )
    return [None if value is None else str(value) for value in columns[name]]


def known(value: float) -> float | None:
    """A score as a record holds it: None where there is none."""
    return None if math.isnan(value) else value


def _mean(rows: Sequence[EvaluatedRow], name: str) -> Interval | None:
    """Mean of a reward over rows; prompts are drawn, not samples."""
    scored = [(value, row.prompt) for row in rows if (value := row.rewards.get(name)) is not None]
    if not scored:
        return None
    return bootstrap_mean_interval([value for value, _ in scored], clusters=[prompt for _, prompt in scored])


def write_record(path: Path, evaluation: HeldoutRows) -> Path:
    """Write the record of an evaluation in one go, so that a run killed here leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(evaluation.as_json(), allow_nan=False), encoding="utf-8")
    os.replace(draft, path)
    return path
