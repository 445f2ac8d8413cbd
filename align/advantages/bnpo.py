"""BNPO: groups weighted by the density of their success rate, so that the gradient's variance is least."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.outcomes import same_number
from align.advantages.registry import estimator
from align.config.estimators import Bnpo
from align.groups import group_first, group_is_constant, group_mean, group_size

SAME = 1e-24  # variance of success rates that are equal up to the rounding of their means


@dataclass(frozen=True, kw_only=True)
class BetaShape:
    """Both parameters of the Beta distribution that weighs the groups."""

    alpha: float = 1.0
    beta: float = 1.0


def fitted_shape(rates: Float[Tensor, "b"]) -> BetaShape:
    """Parameters from the success rates of the groups, by the method of moments.

        mu = mean(p),  v = var(p, n - 1),  c = mu (1 - mu) / v - 1,  a = c mu,  b = c (1 - mu)
        alpha = max(1, 1 + a/3),  beta = max(1, 1 + b/3)

    If p follows Beta(a, b), the variance of the normalised gradient is least at alpha = 1 + a/3, beta = 1 + b/3. One
    group, or groups that are all equally hard, have no shape: alpha = beta = 1 and every group weighs alike.
    """
    if len(rates) < 2 or float(rates.var()) <= SAME:
        return BetaShape()
    mu, variance = float(rates.mean()), float(rates.var())
    c = mu * (1 - mu) / variance - 1
    return BetaShape(alpha=max(1.0, 1 + c * mu / 3), beta=max(1.0, 1 + c * (1 - mu) / 3))


def group_weights(rates: Float[Tensor, "n"], shape: BetaShape, max_weight: float) -> Float[Tensor, "n"]:
    """min(1 / BetaPDF(p; alpha, beta), max_weight)."""
    alpha, beta = torch.tensor([shape.alpha, shape.beta], dtype=torch.float64)
    log_normaliser = alpha.lgamma() + beta.lgamma() - (alpha + beta).lgamma()
    log_density = torch.xlogy(alpha - 1, rates) + torch.special.xlog1py(beta - 1, -rates) - log_normaliser
    return (-log_density).exp().clamp(max=max_weight)


@estimator(Bnpo)
def bnpo(inputs: AdvantageInputs, options: Bnpo) -> AdvantageResult:
    """Group-centred reward in [0, 1] times the inverse density of the group's success rate.

        p_q = mean reward of group q in [0, 1]
        w_q = min( 1 / BetaPDF(p_q; alpha, beta), 1e6 )        alpha, beta from all p_q of the batch (`fitted_shape`)
        A_i = w_q (r_i - p_q)

    alpha = beta = 1 is Dr. GRPO; 1.5 with rewards of 0 and 1 is pi/8 times GRPO with the population deviation. Several
    rewards (`[n, m]`) are treated one by one, each with its own shape, and their advantages averaged; a reward that a
    sample lacks adds 0. With scores that are not 0 or 1 the argument about the variance is only a heuristic.

    References:
        Xiao et al., "BNPO: Beta Normalization Policy Optimization", arXiv:2506.02864. Equation number not checked.

    Raises:
        ValueError: a reward outside [lo, hi], or weights that do not fit the rewards.

    Note:
        Nothing is remembered between batches, in the released code neither. That code fails (NaN, an exception, weights
        of 1e6) on groups that are equally hard, batches of zeros or ones, and groups of one; here the first two have
        alpha = beta = 1 and the last is left out.
    """
    columns = [inputs.rewards] if inputs.rewards.ndim == 1 else list(inputs.rewards.unbind(dim=1))
    weights = options.weights or (1.0,) * len(columns)
    if len(weights) != len(columns) or sum(weights) == 0:
        raise ValueError(
            f"bnpo has {len(columns)} rewards and `weights` {list(weights)}. Give one weight per reward, not all 0."
        )
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.rewards.device)
    stats: dict[str, float] = {"bnpo/capped": 0.0}
    for number, (column, weight) in enumerate(zip(columns, weights, strict=True)):
        rewards = _unit_interval(column, options)
        advantages, shape, capped = _one_reward(rewards, inputs.ids, options.max_weight)
        total = total + weight / sum(weights) * advantages
        name = f"bnpo/{number}/" if len(columns) > 1 else "bnpo/"
        stats |= {f"{name}alpha": shape.alpha, f"{name}beta": shape.beta}
        stats["bnpo/capped"] += capped
    return AdvantageResult(advantages=total, stats=stats)


def _one_reward(
    rewards: Float[Tensor, "n"], ids: Int[Tensor, "n"], max_weight: float
) -> tuple[Float[Tensor, "n"], BetaShape, float]:
    """Advantages of one reward (0 where it is NaN), the shape, and how many groups the cap binds."""
    scored = ~rewards.isnan()
    comparable = group_size(ids, where=scored) >= 2
    rates = group_mean(rewards, ids)
    one_each = group_first(ids) & comparable
    shape = fitted_shape(rates[one_each])
    weights = group_weights(rates, shape, max_weight)
    silent = group_is_constant(rewards, ids) | ~scored | ~comparable
    capped = float((one_each & ~silent & (weights >= max_weight)).sum())
    return torch.where(silent, 0.0, weights * (rewards - rates)), shape, capped


def _unit_interval(rewards: Float[Tensor, "n"], options: Bnpo) -> Float[Tensor, "n"]:
    """Rewards mapped from [lo, hi] to [0, 1], NaN kept."""
    lo, hi = options.lo, options.hi
    if hi <= lo:
        raise ValueError(f"bnpo needs lo < hi, found lo = {lo:g} and hi = {hi:g}: the range of the scorer.")
    outside = ((rewards < lo) & ~same_number(rewards, lo)) | ((rewards > hi) & ~same_number(rewards, hi))
    if bool(outside.any()):
        raise ValueError(
            f"bnpo expects rewards in [{lo:g}, {hi:g}], found {float(rewards[outside][0]):g}. "
            "Set `lo` and `hi` to the range of the scorer; an unbounded scorer needs another estimator."
        )
    return ((rewards - lo) / (hi - lo)).clamp(0.0, 1.0)
