"""Settings of the shapers: what changes the advantages of a base estimator. Torch-free.

Each class is the registration of its `kind`; the formula is the file of that name in `align/advantages`. Defaults are
the paper's, or the released code's where the paper is silent; the formula's docstring says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.declarations import declare_shaper
from align.config.group_relative import Grpo
from align.config.numbers import Decay, NonNegativeFloat, PositiveFloat, Share


@declare_shaper(base=Grpo(eps=1e-6))
@dataclass(frozen=True, kw_only=True)
class NegativeOnly:
    """Only the negative advantages: GRPO-N (a reconstruction).

    Use it after any base, to push failures down and leave successes alone.
    """

    kind: Literal["negative_only"] = "negative_only"
    """Selects this shaper."""


@declare_shaper(base=Grpo(eps=1e-6), requires=("group_ids", "logprobs"), optional=("mask",), modality="sequence")
@dataclass(frozen=True, kw_only=True)
class XrpoNovelty:
    """More for correct answers that were unlikely: XRPO (a reconstruction). arXiv:2510.06672.

    Use it after any base, to favour right answers that the policy finds unlikely.
    """

    kind: Literal["xrpo_novelty"] = "xrpo_novelty"
    """Selects this shaper."""
    lam: NonNegativeFloat = 2.5
    """Size of the bonus."""
    kappa: NonNegativeFloat = 0.5
    """Largest bonus as a share of the advantage."""


@declare_shaper(
    base=Grpo(eps=1e-6),
    requires=("group_ids", "mask", "self_certainty", "token_logits"),
    scope="batch",
    granularity="token",
    min_group=2,
    modality="sequence",
)
@dataclass(frozen=True, kw_only=True)
class Ucas:
    """Damp what is confident and right, punish what is confident and wrong: UCAS. arXiv:2510.10649.

    Use it after grpo, where the policy is confidently wrong.
    """

    kind: Literal["ucas"] = "ucas"
    """Selects this shaper."""
    positive: float = 0.25
    """Strength of the damping of good samples."""
    negative: float = 0.35
    """Strength of the punishment of bad samples."""
    token: float = 0.05
    """Largest amount subtracted from a token, at the largest logit of the batch."""
    reduction: Literal["mean", "sum"] = "mean"
    """Certainty of a sample: mean over its tokens, or (released) the sum, which grows with length."""
    skip_zero_groups: bool = False
    """Leave samples of advantage 0 at 0; otherwise each of their tokens is pushed down a little."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation of certainties."""


@declare_shaper(
    base=Grpo(eps=1e-6),
    requires=("group_ids", "first_tool_pos", "lengths"),
    optional=("correct",),
    modality="sequence",
)
@dataclass(frozen=True, kw_only=True)
class AspoTool:
    """More for correct answers that call a tool early: ASPO. arXiv:2508.19201.

    Use it after a base, for agents that should call a tool early.
    """

    kind: Literal["aspo_tool"] = "aspo_tool"
    """Selects this shaper."""
    delta: float = -2.0
    """Advantage per mean response length of delay; negative rewards early calls."""
    k: NonNegativeFloat = 0.7
    """Largest shift as a share of the advantage; below 1 no sign can change."""
    success_value: float = 1.0
    """Reward of a correct sample, where `correct` is not given."""


@declare_shaper(
    base=Grpo(eps=1e-6),
    requires=("rank_features",),
    optional=("mask",),
    also_requires=lambda options: ("mask",) if options.where == "last" else (),
    scope="batch",
    stateful=True,
    modality="sequence",
)
@dataclass(frozen=True, kw_only=True)
class VerlEffectiveRank:
    """More for responses whose hidden states spread over more dimensions than usual: VERL. arXiv:2509.23808.

    Use it after a base, where hidden states are at hand and exploration dries up.
    """

    kind: Literal["verl_effective_rank"] = "verl_effective_rank"
    """Selects this shaper."""
    rate: Share = 0.3
    """How much of each batch enters the running means."""
    kappa: PositiveFloat = 2.0
    """The bonus is at most the absolute advantage over kappa."""
    gain: float = 2.0
    """Steepness with which acceleration of the rank moves the weight to exploration."""
    limit: PositiveFloat = 5.0
    """Largest relative deviation from the running mean."""
    scale: NonNegativeFloat = 1.0
    """Size of the bonus."""
    score_range: tuple[float, float] | None = None
    """Lowest and highest score: the bonus shrinks as the running score rises to the highest; `null` keeps it."""
    score_rate: Decay = 0.3
    """How much of each batch enters the running score."""
    where: Literal["all", "last"] = "all"
    """Shape the whole response, or (released) its last token only."""
    timing: Literal["previous", "released"] = "previous"
    """Compare with means up to the previous step, or (released) that end two steps earlier and start at 0."""


@declare_shaper(base=Grpo(eps=1e-6), requires=("mask", "logprobs"), granularity="token", modality="sequence")
@dataclass(frozen=True, kw_only=True)
class ProbabilityMask:
    """Only positions at which the policy was unsure keep their advantage. The mask of SPO, arXiv:2505.23564.

    Use it after any base on texts, to train only where the policy was unsure.
    """

    kind: Literal["probability_mask"] = "probability_mask"
    """Selects this shaper."""
    rho: PositiveFloat = 0.9
    """A position is unsure if its probability is below this."""


@declare_shaper(
    base=Grpo(eps=1e-6),
    requires=("group_ids", "mask", "state_key"),
    optional=("turn_id", "turn_end"),
    scope="batch",
    granularity="token",
    stateful=True,
)
@dataclass(frozen=True, kw_only=True)
class NoveltyBonus:
    """Adds a bonus for rarely seen states, global times episodic, compared within the group. Off by default.

    Use it after any base, where rewards are rare and states can be counted.
    """

    kind: Literal["novelty_bonus"] = "novelty_bonus"
    """Selects this shaper."""
    coefficient: NonNegativeFloat = 0.0
    """Size of the bonus of a state seen for the first time ever, in the unit of the advantages; 0 = off."""


@declare_shaper(base=Grpo(eps=1e-4), requires=("group_ids", "user_groups"), scope="batch")
@dataclass(frozen=True, kw_only=True)
class UserSoftMin:
    """More weight for the samples of user groups that score low: a soft-min over users. After arXiv:2402.08925.

    Use it after any base, where a policy must not get better for most by getting worse for a few.
    """

    kind: Literal["user_soft_min"] = "user_soft_min"
    """Selects this shaper."""
    tau: PositiveFloat = 0.1
    """Difference of two groups' mean scores, in the unit of the scores, at which one weighs e = 2.7 times as much."""
    largest: PositiveFloat = 10.0
    """Cap of a sample's weight."""
