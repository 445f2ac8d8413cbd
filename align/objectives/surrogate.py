"""The likelihood ratio and PPO's clipped surrogate, for text and images alike."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.objectives.units import log_ratio, per_unit, precise


def clipped_surrogate(
    log_probs: Float[Tensor, "n *units"],
    old_log_probs: Float[Tensor, "n *units"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n *units"],
    clip_low: float | Float[Tensor, "n *units"],
    clip_high: float | Float[Tensor, "n *units"],
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
        clip_low: how far the ratio may fall below 1, >= 0; one number, or one per unit.
        clip_high: how far the ratio may rise above 1, >= 0; one number, or one per unit.
        dual_clip: bound c > 1 on the ratio of bad samples; None = off.

    Returns:
        One loss per unit. A unit with advantage 0 gives exactly 0 and no gradient, even if its ratio overflows.

    References:
        Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, equation 7.
        Yu et al., "DAPO", arXiv:2503.14476 (two ranges); Ye et al., arXiv:1912.09729 (dual clip).
    """
    _check_clip(clip_low, clip_high, dual_clip)
    if advantages.shape not in (log_probs.shape[:1], log_probs.shape):
        raise ValueError(
            f"expected one advantage per sample {list(log_probs.shape[:1])} or per unit {list(log_probs.shape)}, found "
            f"advantages of shape {list(advantages.shape)}."
        )
    advantages = per_unit(precise(advantages).detach(), log_probs)
    difference = log_ratio(log_probs, old_log_probs)
    # Where A is 0, rho is never formed: 0 * inf would be NaN, in the loss or in its gradient.
    ratio = torch.where(advantages == 0, 0.0, difference).exp()
    # In the ratio's own precision from the start: a plain number would pass through float32.
    lowest = 1 - torch.as_tensor(clip_low, dtype=ratio.dtype, device=ratio.device)
    highest = 1 + torch.as_tensor(clip_high, dtype=ratio.dtype, device=ratio.device)
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(lowest, highest))
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
    advantages = per_unit(precise(advantages), ratio)
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


def _check_clip(clip_low: float | Tensor, clip_high: float | Tensor, dual_clip: float | None) -> None:
    low, high = (float(bound.min()) if isinstance(bound, Tensor) else bound for bound in (clip_low, clip_high))
    if low < 0 or high < 0:
        raise ValueError(
            f"clip_low and clip_high are distances from 1 and must not be negative, found {low} and {high}. "
            "For the range [0.8, 1.2] pass 0.2 and 0.2."
        )
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(
            f"dual_clip bounds the ratio of bad samples and must be above 1, found {dual_clip}. "
            "3 is usual; None switches it off."
        )
