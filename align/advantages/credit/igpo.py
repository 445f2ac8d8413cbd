"""IGPO: a turn is worth what it adds to the policy's confidence in the true answer.

    c_k   = mean log-probability per token of the true answer after k turns, always in the same template
    IG_k  = c_k - c_(k-1)             for all turns but the last, which gets the outcome r
    r~    = z-score of the gains over the group, and apart from it z-score of the outcomes
    R_k   = sum_(j >= k) gamma^(j-k) r~_j,      A = R of the turn, on all its tokens

Where every rollout fails, the gains still differ: the signal does not collapse. One more forward pass per rollout.

Confidence: `confidence`, nats per token, one column before the first turn and one after each; NaN where the true
answer is unknown (gains count 0 and are reported). Or gains placed on the turns' last positions in `token_rewards`.

References:
    Wang et al., "Information Gain-based Policy Optimization", arXiv:2510.14967, the ICLR 2026 version: gains of
    log-probabilities, separate pools. Equation number not checked.

Note:
    The first version: probabilities, one pool (`form="prob", pools="joint"`). Population standard deviation and eps
    1e-8 are our choice. Released code (`release=True`, with `form="prob"`): raw gains and outcome at the turns' last
    tokens, the return restarts at masked positions, minus the group's mean at the same token index, no deviation.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.scan import masked_discounted_scan, restarting_scan
from align.advantages.credit.standard import z_score
from align.advantages.credit.units import (
    broadcast,
    last_of_units,
    trained_positions,
    turns_of,
    unit_exists,
    unit_sum,
)
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import Igpo
from align.groups import group_mean


@estimator(Igpo)
def igpo(inputs: AdvantageInputs, options: Igpo) -> AdvantageResult:
    """Return over turns of standardised gains and outcome."""
    trained = trained_positions(inputs)
    turns = turns_of(inputs, trained)
    exists = unit_exists(turns)
    final = torch.arange(exists.shape[1], device=exists.device) == exists.sum(dim=1, keepdim=True) - 1
    raw = _gains(inputs, turns, exists, options)
    unknown = raw.isnan() & exists & ~final
    outcomes = inputs.rewards.unsqueeze(1).expand(raw.shape)
    rewards = torch.where(final, outcomes, raw.nan_to_num(0.0))
    if options.release:
        advantages = _released(rewards, turns, inputs.ids, trained, options.gamma)
    else:
        standard = _standardised(rewards, exists & ~unknown, final, inputs.ids, options)
        advantages = broadcast(masked_discounted_scan(standard, exists, options.gamma), turns)
    return AdvantageResult(advantages=advantages, stats={"unknown_gains": float(unknown.sum())})


def _gains(
    inputs: AdvantageInputs, turns: Int[Tensor, "n t"], exists: Bool[Tensor, "n k"], options: Igpo
) -> Float[Tensor, "n k"]:
    """Gain of each turn; the last turn's column, and those behind it, do not matter."""
    if inputs.confidence is None:
        return unit_sum(inputs.tensor("token_rewards"), turns)
    needed = exists.shape[1]
    if inputs.confidence.shape[1] < needed:
        raise ValueError(
            f"`confidence` has {inputs.confidence.shape[1]} columns, but a sample has {needed} turns. Give one before "
            "the first turn and one after each turn but the last."
        )
    sure = inputs.confidence[:, :needed]
    sure = sure.exp() if options.form == "prob" else sure
    return torch.cat([sure[:, 1:] - sure[:, :-1], torch.zeros_like(sure[:, :1])], dim=1)


def _standardised(
    rewards: Float[Tensor, "n k"],
    known: Bool[Tensor, "n k"],
    final: Bool[Tensor, "n k"],
    ids: Int[Tensor, "n"],
    options: Igpo,
) -> Float[Tensor, "n k"]:
    """z-scores of the turns' rewards within the group: gains and outcomes in two pools, or in one."""
    pools = 2 * ids.unsqueeze(1) + (final.long() if options.pools == "separate" else 0)
    scores = z_score(rewards, pools.expand(rewards.shape), known, unbiased=options.unbiased, eps=options.eps)
    return torch.where(known, scores, 0.0)


def _released(
    rewards: Float[Tensor, "n k"],
    turns: Int[Tensor, "n t"],
    ids: Int[Tensor, "n"],
    trained: Bool[Tensor, "n t"],
    gamma: float,
) -> Float[Tensor, "n t"]:
    """Returns over tokens minus the group's mean at the same index, padding included."""
    last = last_of_units(turns)
    placed = rewards.new_zeros(turns.shape).scatter_add_(1, last.clamp(min=0), torch.where(last >= 0, rewards, 0.0))
    returns = restarting_scan(placed, trained, gamma)
    width = returns.shape[1]
    index = ids.unsqueeze(1) * width + torch.arange(width, device=ids.device)
    return returns - group_mean(returns.flatten(), index.flatten()).reshape(returns.shape)
