"""DiffusionNFT: no likelihood, but an implicit good and an implicit bad policy around the old one.

    m+ = beta m + (1 - beta) m_old,    m- = (1 + beta) m_old - beta m,    that is  m+- = m_old +- beta (m - m_old)
    L+- = mean((x0+- - x0)^2) / sg(mean |x0+- - x0|)          x0+-: clean latents that m+- imply
    loss = (r L+ + (1 - r) L-) / beta

r in [0, 1] says how good the picture is. A good one pulls the trained policy towards itself; a bad one pulls m-, on the
other side of the old policy, and so pushes the trained one away. Written for velocities; since the clean latents are
linear in the output on every path, it holds for noise and v predictions as it stands.

References:
    Zheng et al., DiffusionNFT, arXiv:2509.16117, sections 3.2 and 3.3; self-normalisation, clip and modes as in its
    released code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.losses.choose import choose

SMALLEST_DEVIATION = 1e-5
"""Lower bound of what an error is divided by."""

MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda advantages: advantages,
    "positive_only": lambda advantages: advantages.clamp_min(0),
    "negative_only": lambda advantages: advantages.clamp_max(0),
    "one_only": lambda advantages: (advantages > 0).to(advantages),
    "binary": torch.sign,
}


def optimality(advantages: Float[Tensor, "b"], clip: float, mode: str = "all") -> Float[Tensor, "b"]:
    """r = clip(A / (2 clip) + 1/2, 0, 1): how good each picture is; 1/2 for an advantage of 0.

    Args:
        advantages: one for each sample.
        clip: advantage that counts as perfect, > 0; released: 5.
        mode: "all"; "positive_only" or "negative_only" set the others to 0; "one_only" makes every positive advantage
            1 and the rest 0, "binary" takes the sign: advantages of 1, so r is 1/2 +- 1 / (2 clip).

    Raises:
        ValueError: unknown mode.
    """
    kept = choose(MODES, mode, "advantages")(advantages.clamp(-clip, clip))
    return (kept / (2 * clip) + 0.5).clamp(0, 1)


def implicit_outputs(
    output: Float[Tensor, "m ..."], old: Float[Tensor, "m ..."], beta: float
) -> tuple[Float[Tensor, "m ..."], Float[Tensor, "m ..."]]:
    """Outputs of the implicit positive and negative policy, m+ and m-; the old policy's output is a constant.

    Args:
        output: of the trained policy, with gradient.
        old: of the policy that rolled out, at the same latents and times.
        beta: how far they lie from the old policy; 1 makes m+ the trained one.
    """
    old = old.detach()
    offset = beta * (output - old)  # exactly 0 where the policies agree: both errors are then equal bit for bit
    return old + offset, old - offset


def self_normalised_error(predicted: Float[Tensor, "m ..."], clean: Float[Tensor, "m ..."]) -> Float[Tensor, "m"]:
    """L = mean((x0' - x0)^2) / max(sg(mean |x0' - x0|), 1e-5), means over elements; one number a row.

    The divisor is a constant to the gradient. It takes the place of a weight over time: errors in clean latents grow
    with t.

    Args:
        predicted: clean latents x0' that a prediction implies, with gradient.
        clean: the true ones.
    """
    difference = (predicted - clean).flatten(1)
    size = difference.detach().abs().double().mean(1).clamp_min(SMALLEST_DEVIATION).to(difference)
    return (difference**2).mean(1) / size


def nft_loss(
    positive: Float[Tensor, "t b"], negative: Float[Tensor, "t b"], r: Float[Tensor, "b"], beta: float
) -> Float[Tensor, "b"]:
    """(r L+ + (1 - r) L-) / beta, mean over times; one number a sample.

    Args:
        positive: L+ of each time and sample, with gradient.
        negative: L- likewise.
        r: of `optimality`.
        beta: of `implicit_outputs`.
    """
    r = r.to(positive)
    return ((r * positive + (1 - r) * negative) / beta).mean(0)
