"""Settings of everything between the reward table and one score per sample. Torch-free.

Each class is the registration of its `kind`; the mathematics of the same name is in `align/shaping`. The three parts
are used in this order: `transforms` (a list, one column at a time), `weights` (where the weights come from), `combine`
(several columns to one score).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt

Names: TypeAlias = tuple[str, ...] | None
Scope: TypeAlias = Literal["group", "batch"]
Missing: TypeAlias = Literal["unscored", "renormalise", "skip"]
Quantile: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


# --- transforms ------------------------------------------------------------------------------------------------------


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
class ReferenceConstant:
    """One number for every prompt: the last resort, it loses the comparison within the prompt."""

    kind: Literal["constant"] = "constant"
    """Selects this reference."""
    value: float
    """The reference, in the unit of the reward."""


@dataclass(frozen=True, kw_only=True)
class ReferenceColumn:
    """Another reward (weight 0) that returns the reference of each sample: a stored score of the base model's
    pictures, of the chosen answer, of a data-set label."""

    kind: Literal["column"] = "column"
    """Selects this reference."""
    column: str
    """Name of the reward that holds the reference."""
    fallback: float | None = None
    """For samples without a reference; `null` leaves them unscored."""


@dataclass(frozen=True, kw_only=True)
class ReferenceCanonical:
    """Score of the group's canonical sample (a refusal, a blank picture, the greedy answer)."""

    kind: Literal["canonical"] = "canonical"
    """Selects this reference."""
    column: str
    """Name of the reward (weight 0) that is not 0 for the canonical sample of each group."""
    fallback: float | None = None
    """For groups without a canonical sample; `null` leaves them unscored."""


@dataclass(frozen=True, kw_only=True)
class ReferenceStart:
    """Quantile over the samples of the run's first steps, then frozen: they are those of the initial policy."""

    kind: Literal["start"] = "start"
    """Selects this reference."""
    q: Quantile = 0.85
    """Which quantile is good enough."""
    steps: PositiveInt = 1
    """How many steps are looked at."""


@dataclass(frozen=True, kw_only=True)
class ReferenceGroup:
    """Quantile of the group's own samples. It moves with the policy, which makes the transform a relative advantage
    without a ceiling; for experiments."""

    kind: Literal["group"] = "group"
    """Selects this reference."""
    q: Quantile = 0.85
    """Which quantile is good enough."""
    method: Literal["gaussian", "empirical"] = "gaussian"
    """mean + PhiInv(q) * std, or the quantile of the samples with linear interpolation."""


Reference = Annotated[
    ReferenceStart | ReferenceConstant | ReferenceColumn | ReferenceCanonical | ReferenceGroup,
    Field(discriminator="kind"),
]


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


# --- weights ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FixedWeights:
    """`rewards.N.weight`, the same in every step."""

    kind: Literal["fixed"] = "fixed"
    """Selects this source of weights."""


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """How one weight changes over the steps."""

    reward: str
    """Name of the reward."""
    start: NonNegativeFloat
    """Weight up to and including step `begin`."""
    end: NonNegativeFloat
    """Weight from step `begin + steps` on."""
    steps: PositiveInt
    """Steps between the two."""
    begin: Count = 0
    """Step (the first is 0) at which it starts to change."""
    shape: Literal["linear", "cosine", "jump"] = "linear"
    """Straight, in half a cosine, or all at once at the end."""


@dataclass(frozen=True, kw_only=True)
class ScheduledWeights:
    """`rewards.N.weight`, except for the rewards whose weight follows a schedule."""

    kind: Literal["schedule"] = "schedule"
    """Selects this source of weights."""
    ramps: tuple[Ramp, ...]
    """At most one per reward."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One coordinate of a direction."""

    reward: str
    """Name of the reward."""
    value: float
    """Coordinate; negative = less of it."""


@dataclass(frozen=True, kw_only=True)
class DirectionWeights:
    """A unit vector in reward space; rewards that are not named have weight 0. DPA, arXiv:2402.18571."""

    kind: Literal["direction"] = "direction"
    """Selects this source of weights."""
    components: tuple[Component, ...]
    """Coordinates, in any length; they are divided by it. Needs `combine: {kind: directional}` if one is negative."""


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A reward that must be good enough on average, at the price of a weight that finds itself."""

    reward: str
    """Name of the reward."""
    at_least: float
    """Wanted mean of the raw reward."""
    rate: PositiveFloat = 0.1
    """Change of the weight per step and unit of violation."""
    start: NonNegativeFloat = 0.0
    """First weight."""
    largest: PositiveFloat = 10.0
    """Cap of the weight: a constraint that cannot be met must not drown everything else."""


@dataclass(frozen=True, kw_only=True)
class ConstraintWeights:
    """`rewards.N.weight`, except for constrained rewards: their weight is a dual variable (Lagrangian, as in safe
    RLHF, arXiv:2310.12773)."""

    kind: Literal["constraint"] = "constraint"
    """Selects this source of weights."""
    constraints: tuple[Constraint, ...]
    """At most one per reward."""


@dataclass(frozen=True, kw_only=True)
class ColumnWeight:
    """One reward and the one that says how much it counts."""

    reward: str
    """Name of the reward."""
    column: str
    """Name of the reward (weight 0) that returns its weight; the same for all samples of a prompt."""


@dataclass(frozen=True, kw_only=True)
class PromptWeights:
    """Weights of each prompt: from columns of the table, such as the output of a preference adapter (PRO,
    arXiv:2511.10656) stored with the prompts. Rewards that are not named have weight 0."""

    kind: Literal["prompt"] = "prompt"
    """Selects this source of weights."""
    columns: tuple[ColumnWeight, ...]
    """One per reward that counts."""


Weights = Annotated[
    FixedWeights | ScheduledWeights | DirectionWeights | ConstraintWeights | PromptWeights,
    Field(discriminator="kind"),
]


# --- combination -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Sum of the reward columns, each times its weight."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    """Selects this combination."""
    missing: Missing = "unscored"
    """A sample without one of its rewards: unscored; the others, scaled up to the whole weight; or the others alone
    (right after a z-score of the group, where 0 is the mean)."""
    allow_negative: bool = False
    """Accept negative weights: costs that are not turned round by a transform."""


@dataclass(frozen=True, kw_only=True)
class Directional:
    """Projection on the weights as a direction of length 1; components may be negative. DPA, arXiv:2402.18571."""

    kind: Literal["directional"] = "directional"
    """Selects this combination."""
    missing: Literal["unscored", "skip"] = "unscored"
    """A sample without one of its rewards: unscored, or the others alone (after imputing or a z-score)."""


@dataclass(frozen=True, kw_only=True)
class SoftMin:
    """-tau log sum_k w_k exp(-u_k / tau): between the worst reward and the weighted mean."""

    kind: Literal["soft_min"] = "soft_min"
    """Selects this combination."""
    tau: NonNegativeFloat = 0.1
    """0 is the worst reward, infinity the weighted mean; in the unit of the transformed rewards."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Chebyshev:
    """-max_k w_k (z_k - u_k) - rho sum_k w_k (z_k - u_k): reaches every point of a front, concave parts too."""

    kind: Literal["chebyshev"] = "chebyshev"
    """Selects this combination."""
    rho: NonNegativeFloat = 0.05
    """Weight of the sum; above 0 it avoids points that are only weakly optimal."""
    mu: NonNegativeFloat = 0.0
    """Above 0 the maximum is smooth: mu log sum_k exp(. / mu)."""
    margin: NonNegativeFloat = 0.1
    """The ideal point z is the group's best of each reward plus this."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Nash:
    """sum_k w_k log(u_k - d): the Nash product. Equal relative gains over the base count equally."""

    kind: Literal["nash"] = "nash"
    """Selects this combination."""
    disagreement: float = 0.0
    """d, what each transformed reward is worth without an agreement (the base model's)."""
    delta: PositiveFloat = 1e-3
    """Below this gain the logarithm goes on as its tangent."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class PowerMean:
    """(sum_k w_k u_k^p)^(1/p) of positive rewards: 1 mean, 0 geometric, -1 harmonic, very negative the worst."""

    kind: Literal["power_mean"] = "power_mean"
    """Selects this combination."""
    p: float = 0.0
    """The exponent."""
    delta: PositiveFloat = 1e-6
    """Smaller rewards count as this one."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Gated:
    """Weighted sum in which the other rewards count only where one reward is good enough."""

    kind: Literal["gated"] = "gated"
    """Selects this combination."""
    gate: str
    """Name of the reward that decides, by its raw value."""
    at_least: float
    """Raw value that opens the gate."""
    floor: float | None = None
    """Value of the others behind a closed gate; `null` as in the transform `gate`."""
    missing: Missing = "unscored"
    """As in `weighted_sum`."""


@dataclass(frozen=True, kw_only=True)
class Lexicographic:
    """First things first: rank in the group by the first reward, then among equals by the next."""

    kind: Literal["lexicographic"] = "lexicographic"
    """Selects this combination."""
    order: tuple[str, ...]
    """Names of the rewards, the most important first."""
    tolerances: tuple[NonNegativeFloat, ...] = ()
    """One per reward: this much below the best still counts as equal. Empty = 0 for all."""


Combine = Annotated[
    WeightedSum | Directional | SoftMin | Chebyshev | Nash | PowerMean | Gated | Lexicographic,
    Field(discriminator="kind"),
]
