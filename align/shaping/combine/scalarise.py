"""Combinations that are not linear: soft minimum, power mean, Nash product, Chebyshev. Rewards on a common scale."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_max
from align.shaping.combine.inputs import Columns, Missing, Weights, columns, finish, row_sum, shares

INF = float("inf")


def soft_min(
    values: Float[Tensor, "n k"], weights: Weights, *, tau: float = 0.1, missing: Missing = "renormalise"
) -> Float[Tensor, "n"]:
    """Between the worst reward and the weighted mean.

        S_i = -tau log sum_k w_k exp(-u_ik / tau),   sum_k w_k = 1;     min_k u <= S <= sum_k w_k u

    tau = 0 is the worst reward, tau = inf the weighted mean. The gradient goes to the worst rewards:
    dS/du_k = w_k exp(-u_k / tau) / sum_j w_j exp(-u_j / tau).

    Args:
        values: rewards on a common scale (transform them first); NaN = not scored.
        weights: divided by their sum.
        tau: temperature, >= 0, in the unit of the rewards.
        missing: `renormalise` judges a sample by its other rewards, `unscored` by none.

    References:
        The minimum over raters: MaxMin-RLHF, arXiv:2402.08925. The soft form is a log-sum-exp.
    """
    if not tau >= 0:
        raise ValueError(f"`tau` must not be negative, found {tau}.")
    parts = _parts(values, weights, missing)
    w = shares(parts)
    if tau == 0:
        return finish(_masked(parts, w > 0, INF).amin(dim=1), parts.scored, values)
    if math.isinf(tau):
        return finish(row_sum(w * parts.values), parts.scored, values)
    exponents = torch.where(w > 0, torch.where(w > 0, w, 1.0).log() - parts.values / tau, -INF)
    return finish(-tau * _log_sum_exp(exponents), parts.scored, values)


def power_mean(
    values: Float[Tensor, "n k"],
    weights: Weights,
    *,
    p: float = 0.0,
    delta: float = 1e-6,
    missing: Missing = "renormalise",
) -> Float[Tensor, "n"]:
    """One knob from the total to the worst.

        S_i = (sum_k w_k u_ik^p)^(1/p),   sum_k w_k = 1;     p = 0: exp(sum_k w_k log u_ik)

    p = 1 mean, 0 geometric, -1 harmonic, -inf the worst.

    Args:
        values: positive rewards; NaN = not scored.
        weights: divided by their sum.
        p: the exponent.
        delta: rewards below count as this one, > 0.
        missing: `renormalise` judges a sample by its other rewards, `unscored` by none.
    """
    if not delta > 0:
        raise ValueError(f"`delta` must be above 0, found {delta}.")
    if math.isnan(p) or p == INF:
        raise ValueError(f"`p` must be a number below infinity, found {p}.")
    parts = _parts(values, weights, missing)
    w, u = shares(parts), parts.values.clamp(min=delta)
    if p == -INF:
        return finish(torch.where(w > 0, u, INF).amin(dim=1), parts.scored, values)
    if p == 0:
        return finish(row_sum(w * u.log()).exp(), parts.scored, values)
    exponents = torch.where(w > 0, torch.where(w > 0, w, 1.0).log() + p * u.log(), -INF)
    return finish((_log_sum_exp(exponents) / p).exp(), parts.scored, values)


def nash(
    values: Float[Tensor, "n k"],
    weights: Weights,
    *,
    disagreement: float | Float[Tensor, "k"] | Float[Tensor, "n k"] = 0.0,
    delta: float = 1e-3,
    missing: Missing = "renormalise",
) -> Float[Tensor, "n"]:
    """Log of the Nash product of the gains over the point of disagreement.

        S_i = sum_k w_k log g_ik,   g = u - d;     below delta:  log(delta) + (g - delta) / delta

    Rescaling a reward together with its d adds a constant, so no common unit is needed; equal relative gains count
    equally. The tangent below delta keeps value and slope continuous where the logarithm is not defined.

    Args:
        values: rewards; NaN = not scored.
        weights: one per reward, or one per sample and reward.
        disagreement: d, what each reward is worth without an agreement: the base model's, per prompt if possible.
        delta: smallest gain with a logarithm, > 0; a thousandth of the rewards' spread is a good choice.
        missing: `renormalise` judges a sample by its other rewards with the whole weight, `unscored` by none.

    References:
        Nash, "The Bargaining Problem", Econometrica 18 (1950). The continuation below delta is ours.
    """
    if not delta > 0:
        raise ValueError(f"`delta` must be above 0, found {delta}.")
    parts = _parts(values, weights, missing)
    gain = parts.values - torch.as_tensor(disagreement, dtype=torch.float64, device=values.device)
    logarithm = torch.where(gain >= delta, gain.clamp(min=delta).log(), math.log(delta) + (gain - delta) / delta)
    return finish(row_sum(torch.where(parts.counts, parts.weights * logarithm, 0.0)), parts.scored, values)


def chebyshev(
    values: Float[Tensor, "n k"],
    weights: Weights,
    *,
    ideal: float | Float[Tensor, "k"] | Float[Tensor, "n k"] | None = None,
    rho: float = 0.05,
    mu: float = 0.0,
    margin: float = 0.1,
    group_ids: Int[Tensor, "n"] | None = None,
    missing: Missing = "renormalise",
) -> Float[Tensor, "n"]:
    """How far the worst weighted reward stays behind the ideal point.

        S_i = -max_k w_k (z_k - u_ik) - rho sum_k w_k (z_k - u_ik)
        smooth (mu > 0):   mu log sum_k exp(w_k (z_k - u_ik) / mu)  instead of the maximum

    Reaches every point of a front, concave parts too, which no weighted sum does. rho > 0 avoids points that could
    still be improved in one reward.

    Args:
        values: rewards on a common scale; NaN = not scored.
        weights: one per reward, or one per sample and reward.
        ideal: z, at least the best value of each reward. None: the best of the sample's group plus `margin`.
        rho: >= 0.
        mu: >= 0; 0 is the maximum itself.
        margin: >= 0, in the unit of the rewards.
        group_ids: for the default of `ideal`; None = one group.
        missing: `renormalise` judges a sample by its other rewards with the whole weight, `unscored` by none.

    References:
        Steuer and Choo, "An interactive weighted Tchebycheff procedure", Mathematical Programming 26 (1983).
    """
    for name, value in (("rho", rho), ("mu", mu), ("margin", margin)):
        if not value >= 0:
            raise ValueError(f"`{name}` must not be negative, found {value}.")
    parts = _parts(values, weights, missing)
    z = _ideal(values, group_ids, margin) if ideal is None else torch.as_tensor(ideal, dtype=torch.float64)
    behind = torch.where(parts.counts, parts.weights * (z - parts.values), 0.0)
    competing = torch.where(parts.counts, behind, -INF)
    worst = competing.amax(dim=1) if mu == 0 else mu * _log_sum_exp(competing / mu)
    return finish(-worst - rho * row_sum(behind), parts.scored, values)


def _parts(values: Tensor, weights: Weights, missing: Missing) -> Columns:
    if missing == "skip":
        raise ValueError("`missing=skip` belongs to sums; here use `renormalise` or `unscored`.")
    parts = columns(values, weights, missing=missing)
    return parts._replace(scored=parts.scored & parts.counts.any(dim=1))


def _masked(parts: Columns, where: Tensor, other: float) -> Tensor:
    return torch.where(where, parts.values, other)


def _ideal(values: Tensor, group_ids: Tensor | None, margin: float) -> Tensor:
    ids = torch.zeros(len(values), dtype=torch.int64, device=values.device) if group_ids is None else group_ids
    best = torch.stack([group_max(column, ids) for column in values.detach().unbind(dim=1)], dim=1)
    return torch.where(best.isinf(), 0.0, best) + margin


def _log_sum_exp(exponents: Tensor) -> Tensor:
    """Over the columns, shifted by the largest; finite rows only matter (others are unscored)."""
    top = exponents.detach().amax(dim=1, keepdim=True)
    top = torch.where(top.isinf(), 0.0, top)
    total = row_sum((exponents - top).exp())
    return torch.where(total > 0, total, 1.0).log() + top.squeeze(1)
