"""Distance of the trained policy to another one, in the terms of the network's output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.losses.choose import choose


def elbo_weight(t: Float[Tensor, "m"], noise_level: float = 0.7) -> Float[Tensor, "m"]:
    """1 / (2 std^2) with std = noise_level sqrt(t / (1 - min(t, 0.99))), the Flow-SDE diffusion; t in (0, 1]."""
    return (1 - t.clamp_max(0.99)) / (2 * noise_level**2 * t)


KL_WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {"uniform": torch.ones_like, "elbo": elbo_weight}


def velocity_kl(
    velocity: Float[Tensor, "m ..."],
    other: Float[Tensor, "m ..."],
    t: Float[Tensor, "m"],
    weighting: str = "uniform",
) -> Float[Tensor, "m"]:
    """Squared velocity difference to another policy at the same (x_t, t), mean over elements, weighted over time.

        w(t) mean((v - v_other)^2),    w = 1 (uniform) or 1 / (2 std(t)^2) (elbo)

    It takes the place of a KL but is not the Gaussian KL of a transition: there is no step size in it.

    Args:
        velocity: of the trained policy, with gradient.
        other: of the base model or the lagged policy; treated as constant.
        t: time of each row.
        weighting: a key of `KL_WEIGHTINGS`.

    Returns:
        One number a row, float32 (float64 for float64 velocities).

    Raises:
        ValueError: unknown weighting.
    """
    weight = choose(KL_WEIGHTINGS, weighting, "kl_weighting")
    wide = torch.promote_types(velocity.dtype, torch.float32)
    squared = (velocity.to(wide) - other.detach().to(wide)) ** 2
    return weight(t.to(squared)) * squared.flatten(1).mean(1)
