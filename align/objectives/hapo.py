"""HAPO's parts of the loss: clip ranges and advantages that follow the entropy of each token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.surrogate import clipped_surrogate
from align.objectives.units import choose, log_ratio, per_unit

LOWEST = 1e-8  # entropies below this, in nats, count as this; the least squared deviation


@dataclass(frozen=True, kw_only=True)
class EntropyPositions:
    """Where each token's entropy lies between the lowest and the highest of the batch.

    Attributes:
        positions: -1 (lowest) .. 0 (the pivot) .. 1 (highest); 0 where nothing is trained.
        uncertain: above the pivot. With the released sign it cannot be told from the positions.
        pivot: of the log-entropies, log nats.
        deviation: root mean squared distance of the log-entropies from the pivot.
        high_scale: largest (log-entropy - pivot) / deviation; 0 if none is above.
        low_scale: largest (pivot - log-entropy) / deviation; 0 if none is below.
    """

    positions: Float[Tensor, "n t"]
    uncertain: Bool[Tensor, "n t"]
    pivot: float
    deviation: float
    high_scale: float
    low_scale: float


@torch.no_grad()
def entropy_positions(
    entropies: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    quantile: float = 0.8,
    negative_side: str = "corrected",
) -> EntropyPositions:
    """Entropies of tokens scaled to [-1, 1] around a quantile.

        e_t = log(max(entropy, 1e-8));  P = quantile of e, nearest rank;  D^2 = max(mean (e - P)^2, 1e-8)
        h = (e - P) / D;   hhat = h / max(h) where h > 0,   hhat = h / |min(h)| where h <= 0

    Args:
        entropies: of the full next-token distribution when the tokens were sampled, nats; all trained tokens of an
            update, so that the result does not depend on micro-batches.
        mask: trained positions.
        quantile: the pivot, the ceil(q n)-th smallest.
        negative_side: `corrected`, or `released`: the public code divides by min(h) with its sign, so that nothing is
            ever negative.

    References:
        Liu et al., "From Uniform to Heterogeneous" (HAPO), arXiv:2509.16591, token-aware normalisation of entropies.
    """
    sign = choose("negative side", negative_side, {"corrected": 1.0, "released": -1.0})
    logs = entropies.double().clamp(min=LOWEST).log()
    counted = logs[mask]
    if len(counted) == 0:
        nowhere = torch.zeros_like(mask)
        return EntropyPositions(
            positions=nowhere.double(),
            uncertain=nowhere,
            pivot=0.0,
            deviation=math.sqrt(LOWEST),
            high_scale=0.0,
            low_scale=0.0,
        )
    pivot = counted.kthvalue(max(math.ceil(quantile * len(counted)), 1)).values
    deviation = (counted - pivot).square().mean().clamp(min=LOWEST).sqrt()
    relative = torch.where(mask, (logs - pivot) / deviation, 0.0)
    high, low = relative.max().clamp(min=0.0), (-relative.min()).clamp(min=0.0)
    # A side without a token has scale 0 and divides nothing.
    above = relative / torch.where(high > 0, high, 1.0)
    below = sign * relative / torch.where(low > 0, low, 1.0)
    return EntropyPositions(
        positions=torch.where(relative > 0, above, torch.where(relative < 0, below, 0.0)),
        uncertain=relative > 0,
        pivot=float(pivot),
        deviation=float(deviation),
        high_scale=float(high),
        low_scale=float(low),
    )


def adaptive_clip(
    positions: Float[Tensor, "n t"],
    clip_range: float = 0.2,
    strength: float = 1.0,
    uncertain: Bool[Tensor, "n t"] | None = None,
) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
    """How far each token's ratio may fall and rise.

        hhat <= 0:  low = e (1 - a hhat),  high = e        certain tokens may become much rarer
        hhat >  0:  low = e,  high = e (1 + a hhat)        uncertain tokens may become much likelier

    Args:
        positions: hhat.
        clip_range: e.
        strength: a.
        uncertain: tokens of the second kind; those with hhat > 0 if None. With the released sign error certain tokens
            have hhat > 0 as well and a *narrower* range.
    """
    uncertain = positions > 0 if uncertain is None else uncertain
    same = torch.full_like(positions, clip_range)
    low = torch.where(uncertain, same, clip_range * (1 - strength * positions)).clamp(min=0.0)
    high = torch.where(uncertain, clip_range * (1 + strength * positions), same)
    return low, high


def redistributed(
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    positions: Float[Tensor, "n t"],
    ratio: Float[Tensor, "n t"],
    clip_low: Float[Tensor, "n t"],
    clip_high: Float[Tensor, "n t"],
    strength: float = 1.0,
    uncertain: Bool[Tensor, "n t"] | None = None,
) -> Float[Tensor, "n t"]:
    """Advantages that entropy amplifies or damps, depending on how far the token has moved already.

        A_ent = A (1 + b hhat);     neutral zone: 1 - low/2 < rho < 1 + high/2
        hhat >  0:  A inside the zone, A_ent outside        amplify uncertain tokens once they move
        hhat <= 0:  A_ent inside the zone, A outside        damp certain tokens while they are still

    Args:
        advantages: A.
        positions: hhat.
        ratio: rho; a constant.
        clip_low: low, after `adaptive_clip`.
        clip_high: high, after `adaptive_clip`.
        strength: b.
        uncertain: as in `adaptive_clip`.
    """
    uncertain = positions > 0 if uncertain is None else uncertain
    plain = per_unit(advantages, positions).expand_as(positions)
    inside = (ratio > 1 - clip_low / 2) & (ratio < 1 + clip_high / 2)
    return torch.where(uncertain ^ inside, plain * (1 + strength * positions), plain)


def hapo_surrogate(
    log_probs: Float[Tensor, "n t"],
    old_log_probs: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    positions: Float[Tensor, "n t"],
    *,
    clip_range: float = 0.2,
    clip_strength: float = 1.0,
    advantage_strength: float = 1.0,
    dual_clip: float | None = 10.0,
    uncertain: Bool[Tensor, "n t"] | None = None,
) -> Float[Tensor, "n t"]:
    """The clipped loss of each token with HAPO's clip ranges and advantages; aggregate with `token_mean`.

    Both strengths 0: the plain clipped surrogate.

    Args:
        log_probs: of the policy that is trained, nats, with gradient.
        old_log_probs: of the policy that sampled, nats.
        advantages: constants, from `hapo_token_group`.
        positions: hhat, `EntropyPositions.positions` or that estimator's aux `entropy_positions`.
        clip_range: e.
        clip_strength: a, of the ranges.
        advantage_strength: b, of the advantages.
        dual_clip: bound on the ratio of bad samples.
        uncertain: as in `adaptive_clip`.

    References:
        Liu et al., "From Uniform to Heterogeneous" (HAPO), arXiv:2509.16591: differential advantage redistribution and
        asymmetric adaptive clipping.
    """
    clip_low, clip_high = adaptive_clip(positions, clip_range, clip_strength, uncertain)
    ratio = log_ratio(log_probs, old_log_probs).detach().exp()
    shaped = redistributed(advantages, positions, ratio, clip_low, clip_high, advantage_strength, uncertain)
    return clipped_surrogate(log_probs, old_log_probs, shaped, clip_low, clip_high, dual_clip)
