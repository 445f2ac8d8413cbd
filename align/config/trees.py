"""Settings of the estimators in which rollouts meet: shared prefixes, trees, recurring states. Torch-free.

Each class is the registration of its `kind`; the implementation with the same name is in `align/advantages/credit`.
Defaults are the form of the paper; what a release does differently is a named value of an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.declarations import declare
from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, Share


@declare(
    requires=("group_ids", "mask"),
    requires_any=(("state_key", "token_ids", "step_key"),),
    optional=("action_key", "turn_id", "turn_end"),
    granularity="token",
)
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("group_ids", "mask"),
    requires_any=(("token_ids", "step_key"),),
    optional=("seg_id",),
    granularity="token",
)
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids", "mask"), requires_any=(("token_ids", "step_key"),), granularity="token")
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("group_ids", "mask", "state_key"),
    optional=("token_rewards", "turn_id", "turn_end"),
    granularity="token",
    exact_zero=False,  # with gamma < 1, equal outcomes reached sooner or later are a signal
)
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("group_ids", "mask"),
    requires_any=(("step_key", "token_ids"),),
    also_requires=lambda options: ("logprobs",) if options.node_value == "logprob" else (),
    granularity="token",
)
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("group_ids", "mask"),
    requires_any=(("step_key", "token_ids"),),
    also_requires=lambda options: ("logprobs",) if options.node_value == "logprob" else (),
    granularity="token",
)
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
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(
    requires=("group_ids", "mask", "done_reward_seq"),
    granularity="token",
    exact_zero=False,  # equal final rewards, reached by different ways, are a signal
)
@dataclass(frozen=True, kw_only=True)
class StepwiseGain:
    """What each denoising step adds to the reward of the implied picture. arXiv:2603.28718 (reconstruction).

    Use it where intermediate predictions are good enough to be scored. Every picture is decoded and scored up to once
    more per trained step, and once before them; the network is not called more often.
    """

    kind: Literal["stepwise_gain"] = "stepwise_gain"
    """Selects this estimator. Costs up to T + 1 further decodings and scorings per picture with T trained steps."""
    pools: Literal["step", "joint"] = "step"
    """Compare a gain with those of its group at the same step, or at all trained steps together."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-4
    """Added to the standard deviation."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""
