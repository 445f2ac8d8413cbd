"""What stands around a preference loss: shortened sums (LD-DPO), weights of pairs (WPO), a likelihood term (RPO)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.objectives import aggregate
from align.objectives.units import precise


def ld_log_probs(
    chosen: Float[Tensor, "n t"],
    rejected: Float[Tensor, "n s"],
    chosen_mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    rejected_mask: Real[Tensor, "n s"] | Bool[Tensor, "n s"],
    *,
    alpha: float,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Summed log-probabilities in which the tokens that one answer has more than the other count less.

        l(y) = sum_{t <= p} log pi(y_t) + alpha sum_{t > p} log pi(y_t),      p = min(|y_w|, |y_l|)

    Takes the reward of mere length out of DPO. Use it for policy and reference alike (TRL does; LLaMA-Factory leaves
    the reference as it is).

    Args:
        chosen: token log-probabilities, nats; finite where masked.
        rejected: the same, of another width if need be.
        chosen_mask: not 0 at the tokens that are scored.
        rejected_mask: the same.
        alpha: in [0, 1]; 1 = plain sums, 0 = the surplus is ignored.

    References:
        Liu et al., "Length Desensitization in Direct Preference Optimization", arXiv:2409.06411.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is the weight of surplus tokens and must be in [0, 1], found {alpha}.")
    shared = torch.minimum((chosen_mask != 0).sum(dim=1), (rejected_mask != 0).sum(dim=1))[:, None]

    def shortened(log_probs: Tensor, mask: Tensor) -> Tensor:
        scored = mask != 0
        surplus = scored & (scored.cumsum(dim=1) > shared)
        weights = torch.where(surplus, alpha, 1.0).to(log_probs.dtype)
        return torch.where(scored, weights * log_probs, 0.0).sum(dim=1)

    return shortened(precise(chosen), chosen_mask), shortened(precise(rejected), rejected_mask)


def wpo_weights(
    chosen: Float[Tensor, "n t"],
    rejected: Float[Tensor, "n s"],
    chosen_log_sum_squares: Float[Tensor, "n t"],
    rejected_log_sum_squares: Float[Tensor, "n s"],
    chosen_mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    rejected_mask: Real[Tensor, "n s"] | Bool[Tensor, "n s"],
    *,
    cap: float | None = 1.0,
) -> Float[Tensor, "n"]:
    """Weight of each pair: how far it could have been sampled from the policy that is trained; a constant.

        w(y) = exp( (1/|y|) sum_t [ log pi(y_t) - log sum_v pi(v)^2 ] ),      weight = min(w(y_w) w(y_l), cap)

    sum_v pi(v)^2 is the mean probability of a token that the policy draws itself: such tokens have ratios around 1.

    Args:
        chosen: token log-probabilities under the policy, nats.
        rejected: the same.
        chosen_log_sum_squares: log sum_v pi(v)^2 at the same tokens (extra `log_sum_squares` of `score_tokens`).
        rejected_log_sum_squares: the same.
        chosen_mask: not 0 at the tokens that are scored.
        rejected_mask: the same.
        cap: largest weight; None = none. The product can exceed 1, since max pi > sum pi^2.

    References:
        Zhou et al., "WPO: Enhancing RLHF with Weighted Preference Optimization", arXiv:2406.11827, equation 2.
    """

    def log_weight(log_probs: Tensor, log_sum_squares: Tensor, mask: Tensor) -> Tensor:
        scored = mask != 0
        aligned = torch.where(scored, precise(log_probs) - precise(log_sum_squares), 0.0).detach()
        return aligned.sum(dim=1) / scored.sum(dim=1).clamp(min=1)

    weight = log_weight(chosen, chosen_log_sum_squares, chosen_mask)
    weight = (weight + log_weight(rejected, rejected_log_sum_squares, rejected_mask)).exp()
    return weight if cap is None else weight.clamp(max=cap)


def negative_log_likelihood(
    log_probs: Float[Tensor, "n t"],
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    *,
    mode: str = "token_mean",
    token_count: int | None = None,
    sequence_count: int | None = None,
    world: int = 1,
) -> Float[Tensor, ""]:
    """The supervised term on chosen answers, added to a preference loss with a weight (RPO, CPO, SimPO's SFT weight).

        token_mean            -sum log pi / tokens of the update         TRL, SimPO's code
        seq_mean_token_mean   mean over answers of -log pi(y) / |y|      RPO's paper

    Args:
        log_probs: token log-probabilities of the chosen answers under the policy, with gradient.
        mask: not 0 at the tokens that are scored.
        mode: a mode of `align.objectives.aggregate`.
        token_count: scored tokens of the whole update; None = of this tensor.
        sequence_count: answers of the whole update; None = of this tensor.
        world: processes whose gradients are averaged.

    References:
        Pang et al., "Iterative Reasoning Preference Optimization", arXiv:2404.19733, equation 1.
    """
    return aggregate(
        -precise(log_probs), mask, mode, token_count=token_count, sequence_count=sequence_count, world=world
    )
