"""DRPO: correct samples compete among themselves for being short, wrong ones among themselves for being likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.outcomes import correct_samples
from align.advantages.registry import estimator
from align.config.estimators import DrpoDecoupled
from align.groups import group_codes, group_first, group_max, group_mean, group_size
from align.objectives import mean_log_probs


@dataclass(frozen=True, kw_only=True)
class DrpoWeights:
    """Weights within each group, 0 for samples that take no part.

    Attributes:
        positive: omega, over the correct samples of a group; sums to 1.
        negative: softmax of s / tau over the wrong samples of a group; sums to 1.
        groups: number of groups with at least one of both.
        all_groups: number of all groups.
    """

    positive: Float[Tensor, "n"]
    negative: Float[Tensor, "n"]
    groups: int
    all_groups: int


def drpo_weights(
    scores: Float[Tensor, "n"],
    lengths: Int[Tensor, "n"],
    correct: Bool[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    max_length: int | float,
    tau: float,
    lam: float,
) -> DrpoWeights:
    """Weights of correct and of wrong samples.

        omega_i = exp((1 - L_i / C) / lam) / sum_{j correct} exp((1 - L_j / C) / lam)
        nu_j    = exp(s_j / tau) / sum_{k wrong} exp(s_k / tau)

    Args:
        scores: s, mean log-probability per token under the current policy, nats; constants.
        lengths: L, tokens; a sample of length 0 takes no part.
        correct: correct or wrong.
        group_ids: equal ids answer the same prompt.
        max_length: C, tokens, a constant of the run.
        tau: temperature of the wrong ones, nats.
        lam: temperature of the preference for short ones; large = all alike.
    """
    right, wrong = correct & (lengths > 0), ~correct & (lengths > 0)
    mixed = (group_size(group_ids, where=right) > 0) & (group_size(group_ids, where=wrong) > 0)
    positive = _softmax((1 - lengths.double() / max_length) / lam, group_ids, right & mixed)
    negative = _softmax(scores.detach().double() / tau, group_ids, wrong & mixed)
    first = group_first(group_ids)
    return DrpoWeights(
        positive=positive,
        negative=negative,
        groups=int((first & mixed).sum()),
        all_groups=group_codes(group_ids)[1],
    )


@estimator(DrpoDecoupled)
def drpo_decoupled(inputs: AdvantageInputs, options: DrpoDecoupled) -> AdvantageResult:
    """DRPO's objective as one constant per sample: the weight of its mean log-probability.

        A_i = omega_i / B        correct samples of a group that has a wrong one
        A_j = -nu_j / B          wrong samples of a group that has a correct one;   B: all groups, others included

    -sum_i A_i s_i has the gradient of DRPO's loss at the policy that gave `logprobs`
    (`align.objectives.drpo_objective` is the loss itself). In each mixed group the positive weights sum to 1/B and
    the negative ones to -1/B, and a correct sample is never pushed down, however long it is.

    `logprobs` are those of the *current* policy. Groups may be spread over processes: gather the mean log-probability
    and the length of each sample as constants, compute the weights anywhere, and no gradient passes the gather.

    References:
        Li et al., "DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization", arXiv:2510.04474.
        Equation number not checked.

    Note:
        The released code takes the padded width of a batch for C (`max_length`); pass a constant of the run. It calls
        samples correct whose reward is exactly 1, and needs groups of equal size. It replaces the surrogate loss and
        takes no shaper. For pictures the temperature tau has no meaning; experimental there.
    """
    trained = inputs.tensor("mask") != 0
    lengths = inputs.tensor("lengths")
    scores = mean_log_probs(inputs.tensor("logprobs"), trained)
    weights = drpo_weights(
        scores,
        torch.where(trained.any(dim=1), lengths, 0),
        correct_samples(inputs, options.success_value),
        inputs.ids,
        max_length=options.max_length or trained.shape[1],
        tau=options.tau,
        lam=options.lam,
    )
    return AdvantageResult(
        advantages=(weights.positive - weights.negative) / weights.all_groups,
        aux={"positive_weight": weights.positive.float(), "negative_weight": weights.negative.float()},
        stats={"drpo/groups": float(weights.groups), "drpo/frac_groups": weights.groups / weights.all_groups},
    )


def _softmax(logits: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], where: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Softmax over the chosen members of each group; 0 for the others."""
    top = group_max(logits, group_ids, where=where)
    powers = torch.where(where, (logits - torch.where(where, top, logits)).exp(), 0.0)
    total = group_mean(powers, group_ids) * group_size(group_ids)
    return torch.where(where, powers / total, 0.0)
