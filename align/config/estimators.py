"""Settings of the estimators that compare whole samples, and of methods that replace the loss. Torch-free.

Each class is the registration of its `kind`; the formula is the file of that name in `align/advantages`.
Defaults are the paper's, or the released code's where the paper is silent; the formula's docstring says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.declarations import Scope, declare
from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _kl_requires(options: ReinforcePP) -> tuple[str, ...]:
    return ("mask", "logprobs", "ref_logprobs") if options.kl_beta else ()


def _canon_scope(options: Canon) -> Scope:
    return "batch" if options.schedule.startswith("accuracy") or options.split == "random" else "group"


def _canon_requires(options: Canon) -> tuple[str, ...]:
    metric = ("metric",) if options.split == "metric" else ()
    return (*metric, "step") if options.schedule.startswith("cosine") else metric


@declare(
    optional=("mask", "token_rewards"),
    also_requires=_kl_requires,
    scope="batch",
    granularity="token",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class ReinforcePP:
    """Return of each token, whitened over all tokens of the batch: REINFORCE++. Hu, arXiv:2501.03262.

    Use it without groups, one answer per prompt: the whole batch is the baseline.
    """

    kind: Literal["reinforce_pp"] = "reinforce_pp"
    """Selects this estimator."""
    gamma: Share = 1.0
    """Discount per trained position."""
    kl_beta: NonNegativeFloat = 0.0
    """Weight of the KL estimate that is subtracted from the reward of each position."""
    kl_kind: Literal["k1", "k2", "k3"] = "k1"
    """Which estimate of the KL divergence to the reference."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the variance."""


@declare(
    requires=("group_ids",),
    optional=("mask",),
    scope="batch",
    granularity="token",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class ReinforcePPBaseline:
    """Reward minus group mean, whitened over all tokens of the batch. Hu, arXiv:2501.03262.

    Use it with groups and token-wise training, where groups are too small for a deviation of their own.
    """

    kind: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    """Selects this estimator."""
    standardise: bool = True
    """Divide by the standard deviation; false keeps only the subtraction of the mean."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-8
    """Added to the variance."""
    singleton: Literal["zero", "raw"] = "zero"
    """What a group with one scored sample brings to the whitening: 0 or the reward itself."""


@declare(requires=("group_ids", "lengths"))
@dataclass(frozen=True, kw_only=True)
class Opo:
    """reward - length-weighted mean of the group: OPO. Hao et al., arXiv:2505.23585.

    Use it for texts of very different length; with equal lengths it is dr_grpo.
    """

    kind: Literal["opo"] = "opo"
    """Selects this estimator."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids",), scope="batch")
@dataclass(frozen=True, kw_only=True)
class Gpg:
    """(reward - group mean) times samples over samples with a reward: GPG. Chu et al., arXiv:2504.02546.

    Use it where many groups give no signal and the step should keep its size all the same.
    """

    kind: Literal["gpg"] = "gpg"
    """Selects this estimator."""
    f_norm: PositiveFloat = 1.0
    """Divides every advantage."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids",))
@dataclass(frozen=True, kw_only=True)
class PassAtK:
    """The best sample of a group gets its lead over the second best, all others 0. Tang et al., arXiv:2503.19595.

    Use it where only the best of several answers counts, and diversity matters more than the average.
    """

    kind: Literal["pass_at_k"] = "pass_at_k"
    """Selects this estimator."""
    standardise: bool = False
    """Divide the lead by the group's standard deviation."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("greedy_rewards",), min_group=1, exact_zero=False)
@dataclass(frozen=True, kw_only=True)
class Remax:
    """reward - reward of a greedy rollout of the same prompt: ReMax. Li et al., arXiv:2310.10505.

    Use it where one greedy answer per prompt is cheaper than a group.
    """

    kind: Literal["remax"] = "remax"
    """Selects this estimator."""


@declare(optional=("correct",), min_group=1, exact_zero=False)
@dataclass(frozen=True, kw_only=True)
class PsrNsr:
    """Learn from successes, from failures, or mostly from failures: PSR, NSR, W-REINFORCE. arXiv:2506.01347.

    Use it for right/wrong rewards without groups; mostly failures keep answers diverse.
    """

    kind: Literal["psr_nsr"] = "psr_nsr"
    """Selects this estimator."""
    signal: Literal["positive", "negative", "weighted"] = "weighted"
    """Successes only (PSR), failures only (NSR), or both with successes damped (W-REINFORCE)."""
    positive_weight: Share = 0.1
    """Weight of successes under `weighted`."""
    success_value: float = 1.0
    """Reward of a success, where `correct` is not given."""


@declare(requires=("group_ids",), min_group=1, exact_zero=False)
@dataclass(frozen=True, kw_only=True)
class Ngrpo:
    """Group z-score with a virtual best sample in every group: NGRPO. Nan et al., arXiv:2509.18851.

    Use it where groups that fail as a whole should teach something, too; needs the best possible reward.
    """

    kind: Literal["ngrpo"] = "ngrpo"
    """Selects this estimator."""
    r_max: float = 1.0
    """Reward of the virtual samples: the best that the scorer can give."""
    virtual: Count = 1
    """Virtual samples per group; 0 is GRPO."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation."""
    singleton: Literal["formula", "raw"] = "formula"
    """What a group with one scored sample gets: the formula holds for it, too; released code: the reward itself."""


@declare(requires=("group_ids",), scope="batch", decomposes=True)
@dataclass(frozen=True, kw_only=True)
class Bnpo:
    """Group-centred reward, weighted by a Beta density of the group's success rate: BNPO. arXiv:2506.02864.

    Use it for rewards in a known range, best right/wrong, whose success rates drift over the training.
    """

    kind: Literal["bnpo"] = "bnpo"
    """Selects this estimator."""
    lo: float = 0.0
    """Smallest reward that the scorer can give."""
    hi: float = 1.0
    """Largest reward that the scorer can give."""
    max_weight: PositiveFloat = 1e6
    """Largest weight of a group."""
    weights: tuple[Weight, ...] | None = None
    """Weight of each reward where samples have several; `null` weighs them alike."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids",), also_requires=_canon_requires, scope=_canon_scope)
@dataclass(frozen=True, kw_only=True)
class Canon:
    """Compare a sample with the half of its group that has a higher or lower metric: CANON. arXiv:2509.23962.

    Use it to compare by a second number (length, entropy, sharpness) without rewarding it directly.
    """

    kind: Literal["canon"] = "canon"
    """Selects this estimator."""
    mu: Share = 0.5
    """Weight of the comparison with the other half; the rest compares within the own half. Used by `constant`."""
    schedule: Literal["constant", "accuracy", "accuracy_reversed", "cosine", "cosine_complement"] = "constant"
    """`constant`: mu. `accuracy`: the batch's mean reward. Cosine ones follow `step`."""
    alpha: PositiveFloat = 1.0
    """Below 1 the preferred half is favoured; 1 treats both alike."""
    beta: float = 0.0
    """Added to the comparison of the high half, subtracted from that of the low half."""
    prefer: Literal["high", "low"] = "high"
    """Which half `alpha` favours: high entropy, or low (short) for lengths."""
    split: Literal["metric", "random"] = "metric"
    """Halves by the metric, or by a random order as a control."""
    seed: int = 0
    """Of the random order."""
    max_length: PositiveInt | None = None
    """Divides every advantage, for use with the loss aggregation `seq_mean_token_sum`; `null` does not divide."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids", "answers"), optional=("correct",), scope="batch")
@dataclass(frozen=True, kw_only=True)
class CopoConsistency:
    """Comparisons within and between groups, blended by how far the answers agree: COPO. arXiv:2508.04138.

    Use it where the final answers can be compared as texts and many groups agree on one.
    """

    kind: Literal["copo_consistency"] = "copo_consistency"
    """Selects this estimator."""
    mode: Literal[
        "soft-with-zero", "only-soft", "only-soft-with-coef", "only-zero", "soft-with-forced", "only-forced",
        "only-global", "no-global",
    ] = "soft-with-zero"  # fmt: skip
    """How the weight of the comparison within the group is made."""
    k: float = 5.0
    """Steepness of the sigmoid of the answers' entropy."""
    b: float = 1.0
    """Entropy in bits at which both comparisons weigh alike."""
    reward_coef: bool = False
    """Damp the mean reward of groups whose answers disagree."""
    zero_test: Literal["correct", "reward"] = "correct"
    """What counts as failed in the modes with `zero`: a wrong sample, or (released) a reward of exactly 0."""
    success_value: float = 1.0
    """Reward of a correct sample, where `correct` is not given."""
    none_answers: Literal["each", "one"] = "each"
    """Whether missing answers (None) disagree with each other or count as one answer."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviations."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets from the comparison within it."""


@declare(
    requires=("group_ids", "mask", "logprobs"),
    optional=("correct",),
    stage="loss",
    min_group=1,
    exact_zero=False,
)
@dataclass(frozen=True, kw_only=True)
class DrpoDecoupled:
    """Correct samples weighted by a preference for short ones, apart from wrong ones: DRPO. arXiv:2510.04474.

    Use it to shorten correct answers without punishing long ones that are right; replaces the surrogate loss.
    """

    kind: Literal["drpo_decoupled"] = "drpo_decoupled"
    """Selects this estimator."""
    tau: PositiveFloat = 10.0
    """Temperature of the softmax over wrong samples."""
    lam: PositiveFloat = 0.1
    """Temperature of the preference for short correct samples; large: none."""
    max_length: PositiveInt | None = None
    """Largest response length C; `null`: the width of the mask, the same only if every batch is padded alike."""
    success_value: float = 1.0
    """Reward of a correct sample, where `correct` is not given."""


@declare(requires=("group_ids", "lengths"), optional=("mask", "entropies"))
@dataclass(frozen=True, kw_only=True)
class HapoTokenGroup:
    """Token-weighted group z-score, and the entropy positions of HAPO's loss. arXiv:2509.16591.

    Use it for texts of different length, with token-wise losses; with equal lengths nearly grpo.
    """

    kind: Literal["hapo_token_group"] = "hapo_token_group"
    """Selects this estimator."""
    standardise: bool = True
    """Divide by the token-weighted standard deviation; false: OPO."""
    threshold: PositiveFloat = 5.0
    """A group with an absolute advantage of at least this much uses GRPO instead."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviations."""
    quantile: Share = 0.8
    """Quantile of the log-entropies that is the pivot between low and high."""
    negative_side: Literal["corrected", "released"] = "corrected"
    """Sign of entropies below the pivot: negative as described, or positive as in the released code."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("prompt_ids",), scope="batch", stateful=True, min_group=1, exact_zero=False)
@dataclass(frozen=True, kw_only=True)
class DdpoTracked:
    """z-score against the last rewards of the same prompt over the steps: DDPO. Black et al., arXiv:2305.13301.

    Use it with one or few pictures per prompt and step, where prompts come back.
    """

    kind: Literal["ddpo_tracked"] = "ddpo_tracked"
    """Selects this estimator."""
    buffer_size: PositiveInt = 32
    """Rewards kept per prompt."""
    min_count: PositiveInt = 16
    """Below this many kept rewards a prompt uses the statistics of the batch."""
    unbiased: bool = False
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation."""
