"""Settings of the transforms: what happens to one reward column by itself. Torch-free.

The mathematics of the same name is in `align/shaping/transforms`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from align.config.numbers import NonNegativeFloat, PositiveFloat
from align.config.shaping.references import Reference, ReferenceStart

Names: TypeAlias = tuple[str, ...] | None
Scope: TypeAlias = Literal["group", "batch"]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """scale * reward + shift: a change of unit, or of sign for a cost."""

    kind: Literal["affine"] = "affine"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scale: float = 1.0
    """Factor, not 0; negative for a cost (lower is better)."""
    shift: float = 0.0
    """Added after the factor."""


@dataclass(frozen=True, kw_only=True)
class ZScore:
    """(reward - mean) / (std + eps). Of each group it is the first half of GDPO, arXiv:2601.05242."""

    kind: Literal["zscore"] = "zscore"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scope: Literal["group", "batch", "running"] = "group"
    """Whose statistics: the sample's group, the batch, or all samples of the run so far."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-4
    """Keeps the division finite."""
    eps_mode: Literal["add", "floor"] = "add"
    """How eps enters: std + eps, or max(std, eps)."""


@dataclass(frozen=True, kw_only=True)
class RobustZScore:
    """(reward - median) / (1.4826 * median absolute deviation): a z-score that outliers do not move."""

    kind: Literal["robust_zscore"] = "robust_zscore"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scope: Scope = "batch"
    """Whose median."""


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """(reward - low) / (high - low)."""

    kind: Literal["minmax"] = "minmax"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scope: Scope = "batch"
    """Whose smallest and largest reward, where no number is given."""
    low: float | None = None
    """Fixed lower end; `null` = the smallest reward."""
    high: float | None = None
    """Fixed upper end; `null` = the largest reward."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """(rank - 1/2) / n, ties sharing their mean rank: immune to units and outliers, blind to how much better."""

    kind: Literal["rank"] = "rank"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scope: Scope = "group"
    """Among whom."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Reward limited to [low, high], or to mean +- stds * std."""

    kind: Literal["clip"] = "clip"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    low: float | None = None
    """Lower limit; `null` = none."""
    high: float | None = None
    """Upper limit; `null` = none. Alone it is a ceiling: more than enough counts as enough."""
    stds: PositiveFloat | None = None
    """Limits in standard deviations around the mean; `null` = none."""
    scope: Scope = "group"
    """Whose mean and standard deviation (unbiased)."""


@dataclass(frozen=True, kw_only=True)
class Tanh:
    """tanh((reward - center) / scale)."""

    kind: Literal["tanh"] = "tanh"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    center: float = 0.0
    """Reward that becomes 0."""
    scale: PositiveFloat = 1.0
    """Distance from the centre at which the value is 0.76."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """1 where the reward is at least the threshold, otherwise 0."""

    kind: Literal["threshold"] = "threshold"
    """Selects this transform."""
    at_least: float
    """The threshold, in the unit of the reward."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""


@dataclass(frozen=True, kw_only=True)
class LogProb:
    """log(reward) of a reward that is a probability; a sum of them is a logical AND."""

    kind: Literal["log_prob"] = "log_prob"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Smaller probabilities count as this one."""


@dataclass(frozen=True, kw_only=True)
class Lsc:
    """log sigmoid((reward - reference) / scale). Wang et al., arXiv:2402.00742; with `weighted_sum` a logical AND."""

    kind: Literal["lsc"] = "lsc"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    reference: Reference = field(default_factory=ReferenceStart)
    """What is good enough."""
    scale: PositiveFloat = 1.0
    """Unit of the reward: 1 for a Bradley-Terry score in natural-log odds; otherwise a clearly visible difference."""


@dataclass(frozen=True, kw_only=True)
class Par:
    """Mean over reference samples of sigmoid(reward - reference): a bounded win rate. arXiv:2502.18770."""

    kind: Literal["par"] = "par"
    """Selects this transform."""
    columns: tuple[str, ...]
    """Rewards (weight 0) that hold scores of the base model's samples for the same prompt."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""
    scale: PositiveFloat = 1.0
    """Unit of the reward: 1 for natural-log odds."""


@dataclass(frozen=True, kw_only=True)
class ReferenceQuantile:
    """Share of the base model's samples that score lower, ties counting one half. After QRPO, arXiv:2507.08068."""

    kind: Literal["reference_quantile"] = "reference_quantile"
    """Selects this transform."""
    columns: tuple[str, ...]
    """Rewards (weight 0) that hold scores of the base model's samples for the same prompt."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""


@dataclass(frozen=True, kw_only=True)
class LengthPenalty:
    """reward - per_unit * max(0, length - free)."""

    kind: Literal["length_penalty"] = "length_penalty"
    """Selects this transform."""
    length: str
    """Name of the reward (weight 0) that holds the length."""
    free: NonNegativeFloat
    """Length that costs nothing."""
    per_unit: NonNegativeFloat
    """Penalty for each unit beyond it."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""


@dataclass(frozen=True, kw_only=True)
class Impute:
    """Missing scores become the mean of the scored ones of the group."""

    kind: Literal["impute"] = "impute"
    """Selects this transform."""
    rewards: Names = None
    """Rewards it changes, by name; `null` = all that are trained on."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A reward counts only where another one is good enough; elsewhere it has its floor."""

    kind: Literal["gate"] = "gate"
    """Selects this transform."""
    rewards: tuple[str, ...]
    """Rewards that are gated, by name."""
    on: str
    """Name of the reward that decides, by its raw value."""
    at_least: float | None = None
    """Smallest raw value that opens the gate; `null` = no such limit."""
    at_most: float | None = None
    """Largest raw value that opens the gate; `null` = no such limit."""
    floor: float | None = None
    """Value behind a closed gate; `null` = 0 in groups whose values are all 0 or more, else the group's smallest minus
    its standard deviation. A floor above a passing sample's value would reward failure."""


Transform = Annotated[
    Affine
    | ZScore
    | RobustZScore
    | MinMax
    | Rank
    | Clip
    | Tanh
    | Threshold
    | LogProb
    | Lsc
    | Par
    | ReferenceQuantile
    | LengthPenalty
    | Impute
    | Gate,
    Field(discriminator="kind"),
]
