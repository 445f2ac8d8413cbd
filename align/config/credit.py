"""Settings of the estimators that decide which token, step, turn or denoising step earns the credit. Torch-free.

Each class is the registration of its `kind`; the implementation with the same name is in `align/advantages/credit`.
Defaults are the form of the paper; what a release does differently is a named value of an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share

Singleton: TypeAlias = Literal["zero", "raw", "error"]


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
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class Salt:
    """GRPO, averaged over all rollouts that take the same step. arXiv:2510.20022 (second-hand).

    Use it where rollouts of a prompt pass through the same states: agents, games, trees.
    """

    kind: Literal["salt"] = "salt"
    """Selects this estimator."""
    trajectory: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    """Advantage of a whole rollout: group z-score, group-centred, or against the other rollouts."""
    unbiased: bool = True
    """For `grpo`: divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """For `grpo`: added to the standard deviation."""
    history: Count | None = 0
    """Number of earlier (state, action) pairs that must agree, too; `null` = all of them."""
    counting: Literal["occurrence", "trajectory"] = "occurrence"
    """A rollout that takes a step twice counts twice, or once."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


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


@dataclass(frozen=True, kw_only=True)
class SpoTree:
    """Value of a node minus the value of its parent, in a tree of rollouts. SPO, arXiv:2505.23564.

    Use it with trees of rollouts that branch at fixed cuts.
    """

    kind: Literal["spo_tree"] = "spo_tree"
    """Selects this estimator."""
    scale: Literal["none", "std"] = "none"
    """Divide by the population standard deviation of the siblings, or not (paper's better variant)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the standard deviation."""
    loo: bool = False
    """Compare a node with its siblings only, not with a mean that contains itself."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """GRPO plus a temporal difference where rollouts branch. arXiv:2509.18314 (reconstruction).

    Use it where rollouts of a prompt share prefixes; elsewhere it is grpo.
    """

    kind: Literal["tempo"] = "tempo"
    """Selects this estimator."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation."""
    loo: bool = False
    """Leave a rollout out of the means that it is compared with."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


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


@dataclass(frozen=True, kw_only=True)
class MarsTurn:
    """Return from a turn on, minus the mean over all turns of the same player. MARS, arXiv:2510.15414.

    Use it for games of several turns and several players.
    """

    kind: Literal["mars_turn"] = "mars_turn"
    """Selects this estimator."""
    release: bool = False
    """The five steps of the released self-play configuration instead of the paper's formula; for parity only."""


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


@dataclass(frozen=True, kw_only=True)
class Gigpo:
    """GRPO over episodes plus a comparison of all steps that start in the same state. arXiv:2505.10978.

    Use it for agents whose environment states recur over the rollouts of a prompt.
    """

    kind: Literal["gigpo"] = "gigpo"
    """Selects this estimator."""
    omega: NonNegativeFloat = 1.0
    """Weight of the comparison of steps."""
    gamma: Share = 0.95
    """Discount per step."""
    scale: Literal["std", "none"] = "std"
    """Divide both comparisons by their standard deviation, or not."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class BranchGrpo:
    """Nodes of a denoising tree compared with the nodes of the same depth. BranchGRPO, arXiv:2509.06040.

    Use it for denoising trees, compared depth by depth.
    """

    kind: Literal["branch_grpo"] = "branch_grpo"
    """Selects this estimator."""
    node_value: Literal["leaves", "children", "logprob"] = "leaves"
    """Value of a node: mean of its leaves, mean of its children, or children weighted by softmax(log-probability)."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the standard deviation."""
    smallest_std: NonNegativeFloat = 1e-6
    """A depth with a smaller standard deviation gets 0."""
    clip: PositiveFloat | None = 5.0
    """Clip advantages to [-clip, clip]; `null` switches it off."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@dataclass(frozen=True, kw_only=True)
class TreeGrpo:
    """Leaves compared with each other, then averaged towards the root. TreeGRPO, arXiv:2512.08153 (second-hand).

    Use it for denoising trees, with credit flowing from the leaves up.
    """

    kind: Literal["tree_grpo"] = "tree_grpo"
    """Selects this estimator."""
    node_value: Literal["leaves", "children", "logprob"] = "leaves"
    """Advantage of a node: mean of its leaves, mean of its children, or weighted by softmax(log-probability)."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the standard deviation."""
    singleton: Singleton = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


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


@dataclass(frozen=True, kw_only=True)
class ProbabilityMask:
    """Only positions at which the policy was unsure keep their advantage. The mask of SPO, arXiv:2505.23564.

    Use it after any base on texts, to train only where the policy was unsure.
    """

    kind: Literal["probability_mask"] = "probability_mask"
    """Selects this shaper."""
    rho: PositiveFloat = 0.9
    """A position is unsure if its probability is below this."""


@dataclass(frozen=True, kw_only=True)
class NoveltyBonus:
    """Adds a bonus for rarely seen states, global times episodic, compared within the group. Off by default.

    Use it after any base, where rewards are rare and states can be counted.
    """

    kind: Literal["novelty_bonus"] = "novelty_bonus"
    """Selects this shaper."""
    coefficient: NonNegativeFloat = 0.0
    """Size of the bonus of a state seen for the first time ever, in the unit of the advantages; 0 = off."""


CreditBase: TypeAlias = (
    Gae
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
    | ReferenceGain
)
"""Estimators that make advantages from rewards."""
CreditShaper: TypeAlias = ProbabilityMask | NoveltyBonus
"""Those that change advantages."""
