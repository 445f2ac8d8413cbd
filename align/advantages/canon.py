"""CANON: compare a sample with those of its group that have a higher or lower metric, neither called better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.config.estimators import Canon
from align.groups import group_first, group_is_constant, group_mean, group_rank, group_size

STEPS, WARMUP, CYCLE = 150, 30, 40  # the released cosine schedule: 30 steps up, then three cycles of 40 down


def intra_weight(step: int, *, top: float, floor: float) -> float:
    """Weight of the comparison within the own half after a warm-up, on a cosine with restarts.

    top (t + 1) / 30 for t < 30, then from `top` to `floor` three times in 40 steps each; `floor` afterwards.
    """
    if step < WARMUP:
        return top * (step + 1) / WARMUP
    if step >= STEPS:
        return floor
    share = (step - WARMUP) % CYCLE / CYCLE
    return floor + (top - floor) * (1 + math.cos(math.pi * share)) / 2


def _step(inputs: AdvantageInputs) -> int:
    if inputs.step is None:
        raise ValueError("a cosine schedule of canon needs `step`. Pass the number of the training step.")
    return inputs.step


def _accuracy(inputs: AdvantageInputs) -> float:
    mean = float(inputs.rewards.mean()) if inputs.batch_mean_reward is None else inputs.batch_mean_reward
    return min(max(mean, 0.0), 1.0)


SCHEDULES: dict[str, Callable[[AdvantageInputs, Canon], float]] = {
    "constant": lambda inputs, options: options.mu,
    "accuracy": lambda inputs, options: _accuracy(inputs),
    "accuracy_reversed": lambda inputs, options: 1 - _accuracy(inputs),
    "cosine": lambda inputs, options: 1 - intra_weight(_step(inputs), top=0.6, floor=0.0),
    "cosine_complement": lambda inputs, options: intra_weight(_step(inputs), top=1.0, floor=0.4),
}


@dataclass(frozen=True)
class Halves:
    """Which half of its group a sample is in, and the mean rewards of both."""

    high: Bool[Tensor, "n"]
    low_mean: Float[Tensor, "n"]
    high_mean: Float[Tensor, "n"]


@estimator(Canon)
def canon(inputs: AdvantageInputs, options: Canon) -> AdvantageResult:
    """Weighted comparison with the own and the other half of the group, halves by a metric.

        low half: the floor(G/2) samples of smallest metric; high half: the rest; m_lo, m_hi: their mean rewards
        intra_i = r_i - mean of own half
        inter_i = r_i - mean of other half
        A_i = mu inter_i + (1 - mu) intra_i        optionally / max_length

    If samples of high metric do better, inter is positive for them: the direction is found, not given. For even G,
    mu = 1/2 and alpha = 1 this is Dr. GRPO. `alpha` < 1 favours a half (`prefer`): its inter is r - alpha m_other, the
    other half's alpha r - m_preferred; `beta` is added for the high half and subtracted for the low one.
    Any number per sample will do as metric: entropy, length, sharpness of a picture.

    References:
        Chen et al., "Conditional Advantage Estimation for Reinforcement Learning in Large Reasoning Models" (CANON),
        arXiv:2509.23962, the inter-group and intra-group comparisons. Equation number not checked.

    Note:
        Ties in the metric break by input order (rule C4), so a permutation may change the result of tied samples. A
        group whose metric is one number has no meaningful halves: Dr. GRPO, counted as a fallback. The released
        trainer never passes the step, so its cosine schedules stay at step 0; its "random" split is the batch
        position, here a permutation drawn from `seed` and the step.
    """
    rewards, ids = inputs.rewards, inputs.ids
    metric = inputs.tensor("metric") if options.split == "metric" else _random_order(inputs, options)
    halves = _halves(rewards, metric, inputs)
    mu = SCHEDULES[options.schedule](inputs, options)
    own = torch.where(halves.high, halves.high_mean, halves.low_mean)
    advantages = mu * _inter(rewards, halves, options) + (1 - mu) * (rewards - own)
    same = group_is_constant(metric, ids) & (group_size(ids) >= 2)
    advantages = torch.where(same, group_centred(rewards, ids), advantages)
    # A group of one has no other half; what it gets is the rules' business.
    advantages = torch.where(group_size(ids) < 2, 0.0, advantages) / (options.max_length or 1)
    return AdvantageResult(
        advantages=advantages, stats={"canon/mu": mu, "fallbacks": float((same & group_first(ids)).sum())}
    )


def _halves(rewards: Float[Tensor, "n"], metric: Float[Tensor, "n"], inputs: AdvantageInputs) -> Halves:
    ids = inputs.ids
    high = group_rank(metric, ids) >= group_size(ids) // 2
    return Halves(high, group_mean(rewards, ids, where=~high), group_mean(rewards, ids, where=high))


def _inter(rewards: Float[Tensor, "n"], halves: Halves, options: Canon) -> Float[Tensor, "n"]:
    """Comparison with the other half, favouring the preferred one where alpha is below 1."""
    preferred = halves.high if options.prefer == "high" else ~halves.high
    other = torch.where(halves.high, halves.low_mean, halves.high_mean)
    favoured, plain = rewards - options.alpha * other, options.alpha * rewards - other
    return torch.where(preferred, favoured, plain) + torch.where(halves.high, options.beta, -options.beta)


def _random_order(inputs: AdvantageInputs, options: Canon) -> Float[Tensor, "n"]:
    generator = torch.Generator().manual_seed(1_000_003 * options.seed + (inputs.step or 0))
    return torch.randperm(len(inputs), generator=generator).double().to(inputs.rewards.device)
