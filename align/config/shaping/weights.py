"""Settings of where weights come from. Torch-free. Mathematics: `align/shaping/weights.py` and `directions.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.paths import FilePath


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


@dataclass(frozen=True, kw_only=True)
class AdapterWeights:
    """Weights of each prompt, inferred by a trained preference adapter (PRO, arXiv:2511.10656). It must have been
    trained for exactly the rewards that have a weight here."""

    kind: Literal["adapter"] = "adapter"
    """Selects this source of weights."""
    path: FilePath
    """The adapter: a folder with adapter.json, or the run folder that trained it."""
    anchor: Share = 0.0
    """Share of your own weights (`rewards.N.weight`, divided by their sum) that is mixed in; 1 = yours alone."""


@dataclass(frozen=True, kw_only=True)
class DrawnDirection:
    """The direction that the run has drawn for each group, a unit vector (section `directions`). Objectives are the
    rewards whose weight is not 0, however large it is. DPA, arXiv:2402.18571."""

    kind: Literal["drawn_direction"] = "drawn_direction"
    """Selects this source of weights."""


Weights = Annotated[
    FixedWeights
    | ScheduledWeights
    | DirectionWeights
    | ConstraintWeights
    | PromptWeights
    | AdapterWeights
    | DrawnDirection,
    Field(discriminator="kind"),
]
