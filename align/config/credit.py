"""Settings of the estimators that spread one rollout's reward over its tokens, turns or steps. Torch-free.

Each class is the registration of its `kind`; the implementation with the same name is in `align/advantages/credit`.
Those that compare rollouts where they meet are in `trees.py`. Defaults are the form of the paper; what a release does
differently is a named value of an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.declarations import Scope, declare
from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share


def _whitened_scope(options: Gae | Egae | Returns | SpoChain) -> Scope:
    """Whitening looks at the whole batch."""
    return "batch" if options.whiten else "group"


def _pure_scope(options: PureMin) -> Scope:
    """Whitening, and the longest answer of the batch, need all rows."""
    return "batch" if options.release == "verl" or (options.release == "none" and not options.max_length) else "group"


def _mars_scope(options: MarsTurn) -> Scope:
    return "batch" if options.release else "group"


def _gain_scope(options: ReferenceGain) -> Scope:
    return "batch" if options.scale == "batch" else "group"


@declare(
    requires=("mask", "values"),
    optional=("token_rewards",),
    scope=_whitened_scope,
    granularity="token",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class Gae:
    """Generalised advantage estimation from a critic. Schulman et al., arXiv:1506.02438, equation 16.

    Use it with a trained critic and rewards on the way.
    """

    kind: Literal["gae"] = "gae"
    """Selects this estimator."""
    gamma: Share = 1.0
    """Discount per trained position."""
    lam: Share = 0.95
    """How far an advantage looks ahead: 0 = one position, 1 = to the end."""
    lam_value: Share | None = None
    """The same for the critic's targets, if it differs (VC-PPO, VAPO: 1); `null` = `lam`."""
    length_alpha: PositiveFloat | None = None
    """Replaces `lam` by 1 - 1 / (alpha * length), at least 0 (VAPO: 0.05); `null` = off."""
    whiten: bool = False
    """Subtract the batch's mean over trained positions and divide by its unbiased standard deviation."""


@declare(
    requires=("mask", "values", "truncated"),
    optional=("token_rewards", "policy_window_mask"),
    also_requires=lambda options: ("bootstrap_values",) if options.bootstrap == "given" else (),
    scope=_whitened_scope,
    granularity="token",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class Egae:
    """GAE in which a truncated sample goes on at its last value. T-PPO, arXiv:2506.15050.

    Use it with a critic, where long answers are cut and go on in the next step.
    """

    kind: Literal["egae"] = "egae"
    """Selects this estimator."""
    gamma: Share = 1.0
    """Discount per trained position."""
    lam: Share = 0.95
    """How far an advantage looks ahead: 0 = one position, 1 = to the end."""
    lam_value: Share | None = None
    """The same for the critic's targets, if it differs; `null` = `lam`."""
    length_alpha: PositiveFloat | None = None
    """Replaces `lam` by 1 - 1 / (alpha * length), at least 0; `null` = off."""
    bootstrap: Literal["last", "given"] = "last"
    """Value behind a truncation: the last position's (paper), or the input `bootstrap_values`."""
    whiten: bool = False
    """Subtract the batch's mean over trained positions and divide by its unbiased standard deviation."""


@declare(
    requires=("mask",),
    optional=("token_rewards",),
    scope=_whitened_scope,
    granularity="token",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class Returns:
    """Discounted sum of the rewards from a position on: REINFORCE without a baseline.

    Use it as the plainest credit over time, with a baseline from elsewhere.
    """

    kind: Literal["returns"] = "returns"
    """Selects this estimator."""
    gamma: Share = 1.0
    """Discount per step of the clock that `discount` names."""
    discount: Literal["valid_only", "per_position", "per_turn", "reset"] = "valid_only"
    """What the clock counts: trained positions, all positions, turns (OpenRLHF, ROLL), or trained positions with a
    restart at every gap (older verl; credit never crosses a tool's answer)."""
    whiten: bool = False
    """Subtract the batch's mean over trained positions and divide by its unbiased standard deviation."""


@declare(
    requires=("group_ids", "mask", "token_rewards", "step_end"),
    scope=_pure_scope,
    granularity="token",
    modality="sequence",
    exact_zero=False,  # equal outcomes with different steps are a signal
)
@dataclass(frozen=True, kw_only=True)
class PureMin:
    """A chain of reasoning steps is worth its worst step. PURE, arXiv:2504.15275.

    Use it with a process reward model: sums of step scores get exploited, minima much less.
    """

    kind: Literal["pure_min"] = "pure_min"
    """Selects this estimator."""
    form: Literal["soft", "exact", "mean"] = "soft"
    """How step scores become rewards that can be summed: soft minimum (training in the paper), minimum, mean."""
    temperature: PositiveFloat = 0.1
    """Of the soft minimum, in the unit of the step scores."""
    outcome_coef: NonNegativeFloat = 1.0
    """Weight of the verifiable outcome reward beside the step scores; 0 = step scores alone."""
    max_length: PositiveInt | None = None
    """Longest allowed answer, the paper's divisor of the baseline; `null` = the longest of the batch."""
    release: Literal["none", "main_token", "main_step", "verl"] = "none"
    """`none` = the paper; else one of the forms of the released code."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("mask", "logprobs"),
    requires_any=(("values_at_cuts", "values"),),
    scope=_whitened_scope,
    granularity="token",
    modality="sequence",
    min_group=1,
    exact_zero=False,  # values differ where rewards do not
)
@dataclass(frozen=True, kw_only=True)
class SpoChain:
    """Change of the value from one cut to the next; cuts where the policy is unsure. SPO, arXiv:2505.23564.

    Use it with values at cuts of the text, from a critic or from extra rollouts.
    """

    kind: Literal["spo_chain"] = "spo_chain"
    """Selects this estimator."""
    rho: PositiveFloat = 0.9
    """A position is unsure if its probability is below this. Above 1, every position is."""
    interval: PositiveInt = 5
    """Unsure positions per segment."""
    probability_mask: bool = True
    """Only unsure positions get the advantage of their segment."""
    whiten: bool = False
    """Whiten over the positions of the batch that receive an advantage, as the release does."""


@declare(
    requires=("group_ids", "mask"),
    requires_any=(("confidence", "token_rewards"), ("turn_id", "turn_end")),
    granularity="token",
    modality="sequence",
    min_group=1,
    exact_zero=False,  # gains differ where outcomes are equal
)
@dataclass(frozen=True, kw_only=True)
class Igpo:
    """How much a turn raises the policy's confidence in the true answer. arXiv:2510.14967 (ICLR 2026).

    Use it for agents whose true answer is known, where the outcome alone is too rare.
    """

    kind: Literal["igpo"] = "igpo"
    """Selects this estimator."""
    form: Literal["logp", "prob"] = "logp"
    """Gains of the log-probability per token (ICLR version) or of its exponential (first version)."""
    pools: Literal["separate", "joint"] = "separate"
    """Standardise gains and outcomes apart (ICLR version) or in one pool (first version)."""
    gamma: Share = 1.0
    """Discount per turn."""
    unbiased: bool = False
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the standard deviation."""
    release: bool = False
    """The released code: raw gains and outcome, minus the group's mean at the same token index. It compares unrelated
    positions of rollouts of different length; for parity only. `pools`, `unbiased` and `eps` do nothing then."""


@declare(
    requires=("mask",),
    requires_any=(("turn_id", "turn_end"),),
    optional=("token_rewards", "group_ids", "player", "role", "agent"),
    scope=_mars_scope,
    granularity="token",
    modality="both",
    min_group=1,
    exact_zero=False,  # turn rewards differ where outcomes are equal
)
@dataclass(frozen=True, kw_only=True)
class MarsTurn:
    """Return from a turn on, minus the mean over all turns of the same player. MARS, arXiv:2510.15414.

    Use it for games of several turns and several players.
    """

    kind: Literal["mars_turn"] = "mars_turn"
    """Selects this estimator."""
    release: bool = False
    """The five steps of the released self-play configuration instead of the paper's formula; for parity only."""


@declare(requires=("group_ids",), optional=("agent", "parent", "call"), scope="batch", modality="both", min_group=1)
@dataclass(frozen=True, kw_only=True)
class MGrpo:
    """Main agent and sub-agents, each compared with its kind. M-GRPO, arXiv:2511.13288.

    Use it for a main agent that calls sub-agents.
    """

    kind: Literal["m_grpo"] = "m_grpo"
    """Selects this estimator."""
    calls: PositiveInt | None = None
    """Sub-agent calls to which every rollout is aligned by duplicating or dropping; `null` = from `coverage`."""
    coverage: Share = 0.99
    """Without `calls`: the smallest number that this share of the rollouts does not exceed."""
    seed: Count = 0
    """Of the choice which calls are duplicated or dropped."""
    unbiased: bool = False
    """Divide squared deviations by n - 1 (true) or by n (false, paper)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the standard deviation."""


@declare(
    requires=("reference_rewards",),
    optional=("group_ids",),
    scope=_gain_scope,
    min_group=1,
    exact_zero=False,  # equal rewards above the reference are a signal
)
@dataclass(frozen=True, kw_only=True)
class ReferenceGain:
    """Reward minus what the reference policy scored on the same prompt. No group is needed.

    Use it where every prompt has the reward of a reference policy; no group is needed.
    """

    kind: Literal["reference_gain"] = "reference_gain"
    """Selects this estimator."""
    scale: Literal["none", "group", "batch"] = "none"
    """Divide by nobody's spread, or by the root mean square of the gains of the group or of the batch."""
    eps: NonNegativeFloat = 1e-6
    """Added to the divisor."""
