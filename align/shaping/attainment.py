"""Which trade-offs does a random front reach, and how often? Two objectives, both maximised. Pure.

A method that is trained again, or evaluated on other prompts, gives another front. The attainment surface of a share q
is the staircase that the share q of those fronts reaches:

    h(x)   = max { p_2 : p in front, p_1 >= x }         -inf where no point goes so far
    S_q(x) = largest y with  P( h(x) >= y ) >= q

q = 0.5 is the middle front; q = 0.975 and 0.025 bound it from below and above.

References:
    Grunert da Fonseca, Fonseca and Hall, "Inferential Performance Assessment of Stochastic Optimisers and the
    Attainment Function", EMO 2001.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def staircase(fronts: Float[Tensor, "r n 2"], grid: Float[Tensor, "g"]) -> Float[Tensor, "r g"]:
    """h(x) of r fronts of n points at g values of the first objective; dominated points change nothing."""
    reaches = fronts[:, None, :, 0] >= grid[None, :, None]
    return torch.where(reaches, fronts[:, None, :, 1], -math.inf).amax(dim=2)


def attainment(
    fronts: Float[Tensor, "r n 2"], grid: Float[Tensor, "g"], shares: Sequence[float]
) -> Float[Tensor, "q g"]:
    """S_q(x): one row for each share.

    Args:
        fronts: r fronts of n points each.
        grid: values of the first objective, in its unit.
        shares: each in (0, 1].

    Returns:
        Values of the second objective, in its unit; -inf where the share of the fronts does not get so far.

    Raises:
        ValueError: no front, or a share outside (0, 1].
    """
    if len(fronts) == 0 or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"expected at least one front and shares in (0, 1], found {len(fronts)} and {list(shares)}.")
    falling = staircase(fronts, grid).sort(dim=0, descending=True).values
    # 1e-9: 0.975 * 1000 must count as 975, whatever its rounding.
    return torch.stack([falling[math.ceil(share * len(fronts) - 1e-9) - 1] for share in shares])
