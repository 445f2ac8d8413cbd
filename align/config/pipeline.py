"""Settings of the shared path from rewards to advantages: the whole pipeline, and the first estimators. Torch-free.

Each class is the registration of its `kind`; the implementation with the same name is in `align/shaping` or
`align/advantages`. Presets of the literature differ only in these numbers (docs: "One standard deviation, many
presets").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.credit import CreditBase, CreditShaper
from align.config.estimators import (
    AspoTool,
    Bnpo,
    Canon,
    CopoConsistency,
    DdpoTracked,
    Gpg,
    HapoTokenGroup,
    NegativeOnly,
    Ngrpo,
    Opo,
    PassAtK,
    PsrNsr,
    ReinforcePP,
    ReinforcePPBaseline,
    Remax,
    Ucas,
    VerlEffectiveRank,
    XrpoNovelty,
)
from align.config.numbers import NonNegativeFloat, PositiveFloat
from align.config.shaping import Combine, FixedWeights, Transform, WeightedSum, Weights


@dataclass(frozen=True, kw_only=True)
class Grpo:
    """(reward - group mean) / (std + eps). Shao et al., arXiv:2402.03300, section 4.1.2.

    Use it as the plain default: every prompt weighs alike, however far its rewards spread.
    """

    kind: Literal["grpo"] = "grpo"
    """Selects this estimator."""
    scale: Literal["group", "batch", "none"] = "group"
    """Whose standard deviation divides: the sample's group, the whole batch, or nobody's."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-4
    """Keeps the division finite."""
    eps_mode: Literal["add", "floor"] = "add"
    """How eps enters: std + eps, or max(std, eps)."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""
    leave_one_out_std: bool = False
    """Mean and standard deviation of the *other* samples of the group, as in NeMo-RL; needs `scale: group`."""


@dataclass(frozen=True, kw_only=True)
class DrGrpo:
    """reward - group mean. Liu et al., arXiv:2503.20783, section 3.

    Use it where the unit of the rewards means something, or prompts whose rewards hardly differ should hardly count.
    """

    kind: Literal["dr_grpo"] = "dr_grpo"
    """Selects this estimator."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class Rloo:
    """reward - mean of the other samples of the group. Ahmadian et al., arXiv:2402.14740, section 3.

    Use it like dr_grpo, for an unbiased baseline in small groups.
    """

    kind: Literal["rloo"] = "rloo"
    """Selects this estimator."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class FlowGrpo:
    """Group mean, standard deviation of the whole batch, population form, + 1e-4: Flow-GRPO and AWM as released.

    Use it for pictures with continuous scores: tiny differences of one prompt stay tiny. The default of AWM here.
    """

    kind: Literal["flow_grpo"] = "flow_grpo"
    """Selects this estimator."""
    global_std: bool = True
    """Divide by the standard deviation of all rewards of the batch (released); false: of the group (the papers)."""
    unbiased: bool = False
    """Divide squared deviations by n - 1 (true) or by n (false, released)."""
    eps: NonNegativeFloat = 1e-4
    """Keeps the division finite."""
    eps_mode: Literal["add", "floor"] = "add"
    """How eps enters: std + eps, or max(std, eps)."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


Base = Annotated[
    Grpo
    | DrGrpo
    | Rloo
    | FlowGrpo
    | ReinforcePP
    | ReinforcePPBaseline
    | Opo
    | Gpg
    | PassAtK
    | Remax
    | PsrNsr
    | Ngrpo
    | Bnpo
    | Canon
    | CopoConsistency
    | HapoTokenGroup
    | DdpoTracked
    | CreditBase,
    Field(discriminator="kind"),
]
Shaper = Annotated[
    NegativeOnly | XrpoNovelty | Ucas | AspoTool | VerlEffectiveRank | CreditShaper, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """From the reward table to one advantage per sample."""

    transforms: tuple[Transform, ...] = ()
    """What happens to each reward by itself, one after the other."""
    weights: Weights = field(default_factory=FixedWeights)
    """Where the weights come from."""
    required: tuple[str, ...] = ()
    """Rewards without which a sample is unscored, whatever `combine.missing` says."""
    combine: Combine = field(default_factory=WeightedSum)
    """How several rewards become one score."""
    base: Base = field(default_factory=FlowGrpo)
    """The advantage estimator."""
    shapers: tuple[Shaper, ...] = ()
    """What changes the advantages afterwards, in this order."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What estimators read from a reward, field -> name of the reward: `metric: sharpness` compares halves of CANON."""
    clip: PositiveFloat | None = 5.0
    """Clip advantages to [-clip, clip]; `null` switches it off."""
