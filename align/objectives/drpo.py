"""DRPO's objective: likely correct samples against likely wrong ones, and a penalty on the distance moved."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from align.groups import group_codes
from align.objectives.kl import kl_estimate
from align.objectives.units import precise


def mean_log_probs(
    log_probs: Float[Tensor, "n t"], mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"]
) -> Float[Tensor, "n"]:
    """Mean log-probability per trained position of each sample, nats, with gradient; 0 for a sample without one."""
    trained = mask != 0
    return torch.where(trained, precise(log_probs), 0.0).sum(dim=1) / trained.sum(dim=1).clamp(min=1)


def drpo_objective(
    scores: Float[Tensor, "n"],
    positive: Float[Tensor, "n"],
    wrong: Bool[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    tau: float = 10.0,
    group_count: int | None = None,
) -> Float[Tensor, ""]:
    """Loss to be minimised, without the penalty; whole groups only.

        J_q  = sum_{i correct} omega_i ( s_i - tau log mean_{j wrong} exp(s_j / tau) )
        loss = - (1 / B) sum_q J_q        over groups with a correct and a wrong sample; B counts all groups

    Args:
        scores: s, mean log-probability per token, nats, with gradient (`mean_log_probs`).
        positive: omega, sums to 1 over the correct samples of a mixed group, 0 elsewhere: `positive_weight` in the aux
            of `drpo_decoupled`.
        wrong: the wrong samples that take part.
        group_ids: equal ids answer the same prompt.
        tau: temperature of the wrong samples, nats.
        group_count: B of the whole update; None = of this tensor.

    Returns:
        A scalar with gradient, 0 if no group is mixed (the graph stays alive).

    References:
        Li et al., "DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization", arXiv:2510.04474.

    Note:
        The released code reports a constant instead of the log-mean-exp; the gradient is the same, the value is not.
        `weighted_likelihood` has the same gradient and lets groups be spread over processes.
    """
    codes, groups = group_codes(group_ids)
    scores = precise(scores)
    scaled = scores / tau
    # logsumexp by group: the largest score comes off first and needs no gradient of its own.
    top = torch.full((groups,), -torch.inf, dtype=scaled.dtype, device=scaled.device)
    top = top.scatter_reduce(0, codes, scaled.detach().masked_fill(~wrong, -torch.inf), "amax")
    top = torch.where(top.isfinite(), top, 0.0)
    powers = torch.where(wrong, scaled - top[codes], 0.0).exp() * wrong
    total = torch.zeros_like(top).index_add(0, codes, powers)
    count = torch.zeros_like(top).index_add(0, codes, wrong.to(top.dtype))
    baseline = tau * (top + torch.where(count > 0, total / count.clamp(min=1), 1.0).log())
    gains = positive.to(scores) * (scores - baseline[codes])
    return -gains.sum() / max(groups if group_count is None else group_count, 1)


def weighted_likelihood(scores: Float[Tensor, "n"], weights: Float[Tensor, "n"], world: int = 1) -> Float[Tensor, ""]:
    """-W sum_i A_i s_i: DRPO's gradient from one constant per sample, the advantages of `drpo_decoupled`.

    The weights have to be those at the present policy. W = `world` processes whose gradients are averaged.
    """
    scores = precise(scores)
    return -world * (weights.to(scores).detach() * scores).sum()


def drpo_penalty(
    log_probs: Float[Tensor, "n t"],
    old_log_probs: Float[Tensor, "n t"],
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    *,
    beta: float = 1000.0,
    delta: float = 1e-4,
    kind: str = "k1",
) -> Float[Tensor, ""]:
    """beta [KL - delta]_+ (a constant) times KL: no pull inside the trust region, a growing one outside.

    KL is the mean over trained tokens of log pi_old - log pi (`k1`) or of rho - 1 - log rho (`k3`), estimates of
    KL(pi_old || pi) from samples of the old policy, over the full batch: the bracket is not a sum over micro-batches.

    Args:
        log_probs: of the policy that is trained, nats, with gradient.
        old_log_probs: of the policy that sampled, nats.
        mask: trained positions.
        beta: strength of the penalty.
        delta: radius of the trust region, nats per token.
        kind: `k1` or `k3` (the released `kl` and `low_var_kl`).
    """
    if kind not in ("k1", "k3"):
        raise ValueError(f"the penalty of DRPO knows the estimates `k1` and `k3`, found {kind!r}.")
    trained = mask != 0
    # The estimators read log p - log q for samples of p. Here p is the old policy, and the gradient belongs to q.
    difference = precise(old_log_probs).detach() - precise(log_probs)
    per_token = kl_estimate(difference, torch.zeros_like(difference), kind)
    divergence = torch.where(trained, per_token, 0.0).sum() / trained.sum().clamp(min=1)
    return beta * (divergence.detach() - delta).clamp(min=0.0) * divergence
