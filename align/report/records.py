"""What a run folder says, as objects. `read.py` fills them; everything else in this package only looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval, in the unit of the reward; `low` and `high` are NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Means of a reward across user groups; NaN where a number has no meaning.

    Attributes:
        mean: every group counts alike.
        worst: the smallest mean.
        low: the 20th percentile of the means.
        gini: 0 = all alike.
        groups: mean of each.
    """

    mean: float
    worst: float
    low: float
    gini: float
    groups: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One held-out sample: its prompt, the prompt's class, its seed, what the rewards said, and its text if any."""

    prompt: str
    group: str
    seed: int
    rewards: Mapping[str, float]
    completion: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One held-out evaluation.

    Attributes:
        weights: "ema" or "raw": which weights drew the pictures.
        rewards: reward name -> mean over all rows.
        classes: class of prompts -> reward name -> mean over its rows.
        rows: every picture, in the same order at every step.
        pictures: the pictures of the first rows.
        parity: reward name -> how alike its means are across user groups, and each group's mean; empty where prompts
            stand for nobody in particular.
    """

    step: int
    weights: str
    rewards: Mapping[str, Interval]
    classes: Mapping[str, Mapping[str, Interval]]
    rows: tuple[EvaluationRow, ...]
    pictures: tuple[Path, ...]
    parity: Mapping[str, Parity] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of the progress strip: the same prompt and seed at one step of the training."""

    step: int
    prompt: str
    group: str
    seed: int
    image: Path
    rewards: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training sample whose picture was kept; `score` and `advantage` are NaN where unscored."""

    prompt: str
    image: Path
    rewards: Mapping[str, float]
    score: float
    advantage: float


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled table of the plan; rows are (label, value, note)."""

    title: str
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the run said it would do, and (key, recipe's value, ours) where it departs from its recipe."""

    title: str
    sections: tuple[Section, ...]
    differences: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder in memory. `metrics` holds one mapping per step, in order, finite numbers only."""

    folder: Path
    config: Mapping[str, Any]  # Any: the user's YAML
    config_text: str
    plan: Plan | None
    metrics: tuple[Mapping[str, float], ...]
    evaluations: tuple[Evaluation, ...]
    strip: tuple[Tile, ...]
    samples: tuple[Sample, ...]
    samples_step: int | None
    not_finite: Mapping[str, int] = field(default_factory=dict)
    """Metric name -> in how many steps it was logged as NaN or infinite."""
    notes: tuple[str, ...] = ()
    """What could not be read, in sentences."""

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, where it was logged and finite."""
        found = [(int(row["step"]), row[name]) for row in self.metrics if name in row]
        return [step for step, _ in found], [value for _, value in found]

    def names(self) -> tuple[str, ...]:
        """Every metric that has at least one finite value, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))
