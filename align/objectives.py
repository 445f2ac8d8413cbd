"""Pieces of a policy-gradient loss: ratio, clipped surrogate, aggregation, KL estimators. Pure; text and images alike.

A *unit* is what has one log-probability: a token, a denoising step, a sample. Everything here is float32 or better
whatever the network ran in; bfloat16 inputs are raised first, because a ratio of 1.01 is not a bfloat16 number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.errors import did_you_mean

Choice = TypeVar("Choice")


def log_ratio(log_probs: Float[Tensor, "*units"], old_log_probs: Float[Tensor, "*units"]) -> Float[Tensor, "*units"]:
    """Log rho = log pi - log pi_old, in nats, at least float32; no gradient reaches the old policy."""
    return _precise(log_probs) - _precise(old_log_probs).detach()


def clipped_surrogate(
    log_probs: Float[Tensor, "n *units"],
    old_log_probs: Float[Tensor, "n *units"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n *units"],
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Float[Tensor, "n *units"]:
    """PPO's clipped loss of each unit; to be minimised.

        l = max( -A rho,  -A clip(rho, 1 - clip_low, 1 + clip_high) ),        rho = exp(log pi - log pi_old)
        l = min( l, -A dual_clip )                                            where A < 0, if dual_clip is given

    For A > 0 only the upper bound can act, for A < 0 only the lower one (and the dual clip, which bounds the loss of
    a bad sample that has become far more likely).

    Args:
        log_probs: of the policy that is trained, nats, with gradient.
        old_log_probs: of the policy that sampled, nats.
        advantages: constants; one per sample (spread over its units) or one per unit.
        clip_low: how far the ratio may fall below 1, >= 0.
        clip_high: how far the ratio may rise above 1, >= 0.
        dual_clip: bound c > 1 on the ratio of bad samples; None = off.

    Returns:
        One loss per unit. A unit with advantage 0 gives exactly 0 and no gradient, even if its ratio overflows.

    References:
        Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, equation 7.
        Yu et al., "DAPO", arXiv:2503.14476 (two ranges); Ye et al., arXiv:1912.09729 (dual clip).
    """
    _check_clip(clip_low, clip_high, dual_clip)
    advantages = per_unit(_precise(advantages).detach(), log_probs)
    difference = log_ratio(log_probs, old_log_probs)
    # Where A is 0, rho is never formed: 0 * inf would be NaN, in the loss or in its gradient.
    ratio = torch.where(advantages == 0, 0.0, difference).exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))
    if dual_clip is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)


@torch.no_grad()
def clip_statistics(
    log_probs: Float[Tensor, "n *units"],
    old_log_probs: Float[Tensor, "n *units"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n *units"],
    clip_low: float,
    clip_high: float,
    mask: Real[Tensor, "n *units"] | Bool[Tensor, "n *units"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """How far the policy has moved and how often the clip stops it. Means over the units where `mask` is not 0.

    Returns:
        ratio_deviation: mean |rho - 1|; exactly 0 before the first update of a rollout.
        clip_ratio: share of units whose gradient the clip removes (past the bound on the side where their advantage
            pushes).
        clip_ratio/low, clip_ratio/high: the same for each bound.
    """
    ratio = log_ratio(log_probs, old_log_probs).exp()
    advantages = per_unit(_precise(advantages), ratio)
    counted = torch.ones_like(ratio) if mask is None else (mask != 0).to(ratio.dtype)
    low = (ratio < 1 - clip_low) & (advantages < 0)
    high = (ratio > 1 + clip_high) & (advantages > 0)
    shares = {
        "ratio_deviation": (ratio - 1).abs(),
        "clip_ratio": (low | high).to(ratio.dtype),
        "clip_ratio/low": low.to(ratio.dtype),
        "clip_ratio/high": high.to(ratio.dtype),
    }
    units = counted.sum().clamp(min=1)
    return {name: torch.where(counted > 0, values, 0.0).sum() / units for name, values in shares.items()}


def aggregate(
    per_token: Float[Tensor, "n t"],
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    mode: str,
    *,
    token_count: int | None = None,
    sequence_count: int | None = None,
    max_length: int | None = None,
    world: int = 1,
) -> Float[Tensor, ""]:
    """Losses of tokens (or denoising steps) to one number.

        token_mean               W * sum(l m) / n_tok                             DAPO
        seq_mean_token_mean      W * sum_i [ sum_t(l m) / sum_t m ] / n_seq       original GRPO
        seq_mean_token_sum       W * sum_i sum_t(l m) / n_seq
        seq_mean_token_sum_norm  the previous / C                                 Dr. GRPO
        token_sum                W * sum(l m)

    The counts are those of the whole optimiser update: all micro-batches of all W processes. Then W processes whose
    gradients are averaged, with any micro-batching, give the gradient of one process with all the data. A sequence
    without a trained token contributes 0 and is not counted.

    Args:
        per_token: finite at masked positions, too.
        mask: not 0 where a position is trained.
        mode: one of the five above.
        token_count: n_tok; None = of this tensor.
        sequence_count: n_seq, sequences with a trained token; None = of this tensor.
        max_length: C, a constant of the whole run (the largest completion length), never the padded width of a batch.
        world: W, processes whose gradients are averaged.
    """
    trained = mask != 0
    lengths = trained.sum(dim=1)
    sums = torch.where(trained, per_token, 0.0).sum(dim=1)
    tokens = int(lengths.sum()) if token_count is None else token_count
    sequences = int((lengths > 0).sum()) if sequence_count is None else sequence_count

    def norm() -> Tensor:
        if max_length is None:
            raise ValueError(
                "`seq_mean_token_sum_norm` needs `max_length`, a constant of the run. The padded width of a batch "
                "changes from batch to batch: pass the largest completion length."
            )
        return sums.sum() / (max(sequences, 1) * max_length)

    modes: dict[str, Callable[[], Tensor]] = {
        "token_mean": lambda: sums.sum() / max(tokens, 1),
        "seq_mean_token_mean": lambda: (sums / lengths.clamp(min=1)).sum() / max(sequences, 1),
        "seq_mean_token_sum": lambda: sums.sum() / max(sequences, 1),
        "seq_mean_token_sum_norm": norm,
        "token_sum": sums.sum,
    }
    return world * _choose("aggregation mode", mode, modes)()


def kl_estimate(
    log_probs: Float[Tensor, "*units"], ref_log_probs: Float[Tensor, "*units"], kind: str = "k3"
) -> Float[Tensor, "*units"]:
    """Estimate of KL(pi || pi_ref) from the log-probability of what pi sampled, in nats per unit.

        d = log pi - log pi_ref
        k1 = d                     unbiased, may be negative, large variance
        k2 = d^2 / 2               never negative, small variance, biased; its gradient is that of the KL
        k3 = exp(-d) - 1 + d       never negative, unbiased value, small variance

    References:
        Schulman, "Approximating KL Divergence", 2020 (joschu.net/blog/kl-approx.html).
    """
    difference = _precise(log_probs) - _precise(ref_log_probs).detach()
    # expm1: exp(-d) - 1 loses every digit that matters when the policies are close
    estimators: dict[str, Callable[[Tensor], Tensor]] = {
        "k1": lambda d: d,
        "k2": lambda d: d.square() / 2,
        "k3": lambda d: torch.expm1(-d) + d,
    }
    return _choose("KL estimator", kind, estimators)(difference)


def per_unit(per_sample: Tensor, like: Tensor) -> Tensor:
    """One number per sample, shaped to broadcast over the units of `like`; per-unit numbers pass unchanged."""
    if per_sample.ndim == like.ndim:
        return per_sample
    return per_sample.reshape(-1, *[1] * (like.ndim - 1))


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_clip(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    if clip_low < 0 or clip_high < 0:
        raise ValueError(
            f"clip_low and clip_high are distances from 1 and must not be negative, found {clip_low} and {clip_high}. "
            "For the range [0.8, 1.2] pass 0.2 and 0.2."
        )
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(
            f"dual_clip bounds the ratio of bad samples and must be above 1, found {dual_clip}. "
            "3 is usual; None switches it off."
        )


def _choose(what: str, name: str, choices: dict[str, Choice]) -> Choice:
    if name in choices:
        return choices[name]
    raise ValueError(f"no {what} {name!r}.{did_you_mean(name, choices)} Available: {', '.join(choices)}.")
