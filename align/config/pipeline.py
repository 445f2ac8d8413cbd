"""Settings of the shared path from rewards to advantages: the whole pipeline. Torch-free.

Each class of its parts is the registration of its `kind`; the implementation with the same name is in `align/shaping`
or `align/advantages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from align.config.credit import Egae, Gae, Igpo, MarsTurn, MGrpo, PureMin, ReferenceGain, Returns, SpoChain
from align.config.estimators import (
    Bnpo,
    Canon,
    CopoConsistency,
    DdpoTracked,
    Gpg,
    HapoTokenGroup,
    Ngrpo,
    Opo,
    PassAtK,
    PsrNsr,
    ReinforcePP,
    ReinforcePPBaseline,
    Remax,
)
from align.config.group_relative import DrGrpo, FlowGrpo, Grpo, Rloo
from align.config.numbers import PositiveFloat
from align.config.shapers import (
    AspoTool,
    NegativeOnly,
    NoveltyBonus,
    ProbabilityMask,
    Ucas,
    UserSoftMin,
    VerlEffectiveRank,
    XrpoNovelty,
)
from align.config.shaping import Combine, FixedWeights, Transform, WeightedSum, Weights
from align.config.trees import BranchGrpo, Gigpo, Salt, SpoTree, StepwiseGain, Tempo, TreeGrpo

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
    | Gae
    | Egae
    | Returns
    | PureMin
    | Salt
    | SpoChain
    | SpoTree
    | Tempo
    | Igpo
    | MarsTurn
    | MGrpo
    | Gigpo
    | BranchGrpo
    | TreeGrpo
    | StepwiseGain
    | ReferenceGain,
    Field(discriminator="kind"),
]
Shaper = Annotated[
    NegativeOnly | XrpoNovelty | Ucas | AspoTool | VerlEffectiveRank | ProbabilityMask | NoveltyBonus | UserSoftMin,
    Field(discriminator="kind"),
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
