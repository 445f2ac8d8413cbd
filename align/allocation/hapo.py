"""HAPO's adaptive temperature: cooler where the policy is sure, warmer where it is not. Rollout side.

The scale of "sure" comes from the previous training batch; the first step samples at the plain temperature.

    h    = (log max(entropy_t, 1e-6) - P) / D        P, D: pivot and deviation of the last batch
    hhat = h / max h  for h > 0,   h / |min h|  for h <= 0,     limited to [-1, 1]
    T_t  = T (1 + 0.05 hhat_t)

The released code divides the negative side by min h *with* its sign, so that it turns positive and the temperature
never falls; the text and figures of the project describe [-1, 1], and so does this file. `negative_side="released"`
is for parity.

References:
    HAPO, "Heterogeneous Adaptive Policy Optimization", arXiv:2509.16591, adaptive temperature sampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.hapo import EntropyPositions

NegativeSide = Literal["corrected", "released"]


@dataclass(frozen=True, kw_only=True)
class EntropyScale:
    """What the next rollout must know of the last batch: four numbers, for a checkpoint, too.

    Attributes:
        pivot: P, log nats.
        deviation: D > 0, log nats.
        high_scale: largest h of the batch, >= 0.
        low_scale: largest -h of the batch, >= 0.
    """

    pivot: float
    deviation: float
    high_scale: float
    low_scale: float

    @classmethod
    def of(cls, positions: EntropyPositions) -> EntropyScale:
        """The scale of a training batch: `of(align.objectives.entropy_positions(entropies, mask))`."""
        return cls(
            pivot=positions.pivot,
            deviation=positions.deviation,
            high_scale=positions.high_scale,
            low_scale=positions.low_scale,
        )

    def state_dict(self) -> dict[str, float]:
        """The four numbers by name; `EntropyScale(**state)` is the inverse."""
        return asdict(self)


def scaled_entropy(
    entropies: Float[Tensor, "*n"],
    scale: EntropyScale,
    *,
    floor: float = 1e-6,
    negative_side: NegativeSide = "corrected",
) -> Float[Tensor, "*n"]:
    """hhat of tokens, -1 (sure) to 1 (unsure); 0 where a side of the scale has no extent."""
    h = (entropies.double().clamp(min=floor).log() - scale.pivot) / scale.deviation
    sign = -1.0 if negative_side == "released" else 1.0
    up = h / scale.high_scale if scale.high_scale > 0 else torch.zeros_like(h)
    down = sign * h / scale.low_scale if scale.low_scale > 0 else torch.zeros_like(h)
    return torch.where(h > 0, up, down).clamp(-1.0, 1.0).to(entropies.dtype)


def hapo_temperature(
    entropies: Float[Tensor, "*n"],
    scale: EntropyScale | None,
    *,
    temperature: float = 1.0,
    strength: float = 0.05,
    floor: float = 1e-6,
    negative_side: NegativeSide = "corrected",
) -> Float[Tensor, "*n"]:
    """Sampling temperature of the next tokens.

    Training log-probabilities are those of the plain model (temperature 1), whatever was sampled with.

    Args:
        entropies: of the un-tempered next-token distributions, in nats.
        scale: of the previous batch (`EntropyScale.of`); None in the first step: the plain temperature.
        temperature: T > 0.
        strength: largest relative change, in [0, 1).
        floor: smaller entropies count as this one, in nats.
        negative_side: `released` reproduces the published code's sign.
    """
    if not temperature > 0 or not 0 <= strength < 1:
        raise ValueError(f"expected a temperature above 0 and 0 <= strength < 1, found {temperature} and {strength}.")
    if scale is None:
        return torch.full_like(entropies, temperature)
    return temperature * (1 + strength * scaled_entropy(entropies, scale, floor=floor, negative_side=negative_side))
