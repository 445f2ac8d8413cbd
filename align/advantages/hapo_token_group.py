"""HAPO's group average over tokens (TLGA), with the entropy positions that the other parts of HAPO read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_standardised
from align.advantages.opo import length_weighted_mean
from align.advantages.registry import estimator
from align.config.estimators import HapoTokenGroup
from align.groups import group_first, group_is_constant, group_max
from align.objectives.hapo import entropy_positions


@estimator(HapoTokenGroup)
def hapo_token_group(inputs: AdvantageInputs, options: HapoTokenGroup) -> AdvantageResult:
    """z-score with mean and population deviation weighted by tokens.

        mu    = sum_i L_i r_i / sum_i L_i
        sig^2 = sum_i L_i (r_i - mu)^2 / sum_i L_i
        A_i   = (r_i - mu) / (sig + 1e-6);   if any |A| of the group is 5 or more, the whole group uses GRPO

    Equal lengths: sqrt(G/(G-1)) times GRPO. Without the deviation: OPO. Where no group falls back, sum_i L_i A_i = 0.

    With `mask` and `entropies`, aux holds `entropy_positions` [n, t] in [-1, 1] and `uncertain` [n, t] for the loss
    (`align.objectives.hapo_surrogate`), and stats the four numbers that the rollout's temperature needs. They are over
    all trained tokens of the batch; rows that live on several processes have to agree on the pivot, the deviation and
    the two scales only.

    References:
        Liu et al., "From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature" (HAPO),
        arXiv:2509.16591, token-level group average. Equation number not checked.

    Note:
        The released threshold test includes padding, which triggers it for rewards far from 0, and a padded group of
        one keeps its reward; here only samples are tested. The released entropies below the pivot come out positive
        (`negative_side="released"`), against the description, and are taken per micro-batch.
    """
    rewards, ids, lengths = inputs.rewards, inputs.ids, inputs.tensor("lengths")
    advantages = rewards - length_weighted_mean(rewards, lengths, ids)
    fallback = torch.zeros_like(advantages, dtype=torch.bool)
    if options.standardise:
        deviation = length_weighted_mean(advantages.square(), lengths, ids).sqrt()
        advantages = advantages / (deviation + options.eps)
        fallback = (group_max(advantages.abs(), ids) >= options.threshold) & ~group_is_constant(rewards, ids)
        plain = group_standardised(rewards, ids, scope="group", unbiased=True, eps=options.eps, eps_mode="add")
        advantages = torch.where(fallback, plain, advantages)
    aux, stats = _entropy(inputs, options)
    stats["fallbacks"] = float((fallback & group_first(ids)).sum())
    return AdvantageResult(advantages=advantages, aux=aux, stats=stats)


def _entropy(inputs: AdvantageInputs, options: HapoTokenGroup) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Positions for the loss and the numbers behind them, if entropies are given."""
    if inputs.entropies is None or inputs.mask is None:
        return {}, {}
    entropies: Float[Tensor, "n t"] = inputs.entropies
    found = entropy_positions(
        entropies, inputs.mask != 0, quantile=options.quantile, negative_side=options.negative_side
    )
    numbers = {
        "hapo/pivot": found.pivot,
        "hapo/deviation": found.deviation,
        "hapo/high_scale": found.high_scale,
        "hapo/low_scale": found.low_scale,
    }
    return {"entropy_positions": found.positions.float(), "uncertain": found.uncertain}, numbers
