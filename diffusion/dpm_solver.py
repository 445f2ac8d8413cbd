"""DPM-Solver++(2M) on the flow path: a deterministic multi-step solver, second order, in data prediction.

With alpha = 1 - t, lambda(t) = ln((1 - t) / t), data prediction m = x - t v, a step s -> t with h = lambda_t - lambda_s
and the step before it beginning at u:

    x_t = (t/s) x_s - (1 - t) (e^(-h) - 1) [ m_s + (m_s - m_u) / (2 r) ],    r = (lambda_s - lambda_u) / h

The first and the last step are of first order, m_s alone: a DDIM step, x_t = (1 - t) m + t eps. lambda is -infinity at
t = 1, so r is infinite in the second step of a schedule that begins there, which makes that one first-order, too.

References:
    Lu et al., DPM-Solver++, arXiv:2211.01095, algorithm 2 (2M); on flows as the released code of DiffusionNFT,
    arXiv:2509.16117, has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from diffusion.paths import clean_from_velocity
from diffusion.sa_solver import log_signal_to_noise


def extrapolation(before: float, s: float, t: float) -> float:
    """1 / (2 r): share of the change in data prediction over the last step that the next step s -> t goes on with.

    Args:
        before: time at which the last step began, in (s, 1]; 0 is the answer for 1.
        s: time of the latents, in (0, 1).
        t: time of the result, in (0, s).
    """
    if before == 1:
        return 0.0
    here = log_signal_to_noise(s)
    return (log_signal_to_noise(t) - here) / (2 * (here - log_signal_to_noise(before)))


def dpm_solver_sample(
    velocity: Callable[[Tensor, float], Tensor],
    x: Float[Tensor, "n ..."],
    times: Sequence[float] | Float[Tensor, "t"],
) -> Float[Tensor, "n ..."]:
    """Clean latents from noise by n network calls, n = len(times) - 1.

    Args:
        velocity: the network's velocity at (latents, time).
        x: pure noise, float32 or float64.
        times: schedule of n + 1 decreasing times from at most 1 to 0.

    Raises:
        ValueError: not such a schedule.
    """
    grid = [float(t) for t in times]
    if len(grid) < 2 or grid[0] > 1 or grid[-1] != 0 or any(s <= t for s, t in pairwise(grid)):
        raise ValueError(f"expected a schedule that decreases from at most 1 to 0, found {grid}")
    before, previous = 0.0, None
    for s, t in pairwise(grid):
        clean = clean_from_velocity(x, velocity(x, s), s)
        target = clean
        if previous is not None and t > 0:
            target = clean + extrapolation(before, s, t) * (clean - previous)
        # (t/s) x - (1 - t)(e^(-h) - 1) m, with e^(-h) = t (1 - s) / (s (1 - t)) so that both ends are finite.
        x = t / s * x + ((1 - t) - t * (1 - s) / s) * target
        before, previous = s, clean
    return x
