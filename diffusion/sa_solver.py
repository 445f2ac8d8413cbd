"""SA-Solver on the flow path: a stochastic multi-step solver, second order, in data prediction.

With alpha = 1 - t, lambda(t) = ln((1 - t) / t), data prediction m = x - t v and q = 1 + tau^2, one transition s ->
t with h = lambda_t - lambda_s is

    x_t = e^(-tau^2 h) (t/s) x_s + q t e^(-tau^2 lambda_t) sum_i c_i m_i + t sqrt(1 - e^(-2 tau^2 h)) n
    c_i = integral over [lambda_s, lambda_t] of e^(q lambda) l_i(lambda)           (l_i: Lagrange basis on the nodes)

tau = 0 is deterministic. Each transition is predicted from known nodes, the network is called once at the
prediction (PEC), and the prediction is corrected with that value and the same noise.

Numerics: with u = lambda - lambda_t the factor q t e^(-tau^2 lambda_t) e^(q lambda_t) is q (1 - t), and all
    integrals run over [-h, 0]; nothing
overflows at either end. Coefficients are float64: order 2 divides small differences.

References:
    Xue et al., SA-Solver, arXiv:2309.05019, section 4 and appendix on the few-step coefficients; time grid and
    noise window as in the released configurations of Advantage Weighted Matching, arXiv:2509.25050.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.paths import clean_from_velocity

FIRST_TIME = 0.999
"""lambda is -infinity at t = 1, so the grid starts just below."""


def sa_solver_times(sigmas: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """The solver's time grid: a sampler's schedule with its first time at 0.999 and the last one above 0 at half
    of the one before it.

    Args:
        sigmas: schedule of n + 1 decreasing times from 1 to 0.

    Returns:
        n + 1 times in float64.

    Raises:
        ValueError: not a decreasing schedule from 1 to 0, or one whose second time is above 0.999 already.
    """
    times = sigmas.to("cpu", torch.float64, copy=True)
    if len(times) < 2 or times[0] != 1 or times[-1] != 0 or bool((times.diff() >= 0).any()):
        raise ValueError(f"expected a schedule that decreases from 1 to 0, found {sigmas.tolist()}")
    if times[1] >= FIRST_TIME:
        raise ValueError(f"expected a second time below {FIRST_TIME}, found {float(times[1])}: use fewer steps")
    times[0] = FIRST_TIME
    if len(times) > 2:
        times[-2] = times[-3] / 2
    return times


def tau_window(level: float, lowest: float, highest: float) -> Callable[[float], float]:
    """tau(t) = level for lowest <= t <= highest, 0 elsewhere; t is the time a transition goes to."""
    return lambda t: level if lowest <= t <= highest else 0.0


@dataclass(frozen=True)
class Transition:
    """Coefficients of one transition: x_t = sample * x_s + sum_i data[i] * m_i + noise * n.

    Attributes:
        sample: factor of the latents at s.
        data: factors of the data predictions at the nodes, in the order of the nodes.
        noise: standard deviation of the noise.
    """

    sample: float
    data: tuple[float, ...]
    noise: float


def log_signal_to_noise(t: float) -> float:
    """lambda(t) = ln((1 - t) / t) for t in (0, 1): half the log signal-to-noise ratio of the flow path, in nats."""
    return math.log1p(-t) - math.log(t)


def transition(s: float, t: float, nodes: Sequence[float], tau: float, *, few_step: bool = True) -> Transition:
    """Coefficients of the transition s -> t from data predictions at one or two node times.

    Args:
        s: time of the latents, in (0, 1).
        t: time of the result, in (0, s).
        nodes: times of the data predictions, newest (smallest) first: predictor (s, s_before), corrector (t, s);
            one node is order 1.
        tau: noise; 0 is deterministic.
        few_step: add the paper's correction for few steps to order 2.

    Raises:
        ValueError: times outside (0, 1) or not descending; not one or two nodes.
    """
    if not 0 < t < s < 1 or len(nodes) not in (1, 2):
        raise ValueError(f"expected 0 < t < s < 1 and one or two nodes, found s={s}, t={t}, nodes={tuple(nodes)}")
    q = 1 + tau**2
    end = log_signal_to_noise(t)
    h = end - log_signal_to_noise(s)
    integrals = _integrals(q, h, [log_signal_to_noise(node) - end for node in nodes], few_step)
    return Transition(
        sample=math.exp(-(tau**2) * h) * t / s,
        data=tuple(q * (1 - t) * value for value in integrals),
        noise=t * math.sqrt(-math.expm1(-2 * tau**2 * h)),
    )


def _integrals(q: float, h: float, nodes: Sequence[float], few_step: bool) -> tuple[float, ...]:
    """c_i e^(-q lambda_t): integrals of e^(q u) l_i(u) over [-h, 0], nodes given as lambda - lambda_t."""
    constant = -math.expm1(-q * h) / q
    if len(nodes) == 1:
        return (constant,)
    newest, older = nodes
    linear = (math.exp(-q * h) * (q * h + 1) - 1) / q**2
    extra = (h**2 / 2 - (q * h + math.expm1(-q * h)) / q**2) / (newest - older) if few_step else 0.0
    return (
        (linear - older * constant) / (newest - older) + extra,
        (linear - newest * constant) / (older - newest) - extra,
    )


def _apply(rule: Transition, x: Tensor, predictions: Sequence[Tensor], noise: Tensor | None) -> Float[Tensor, "n ..."]:
    result = rule.sample * x
    for factor, prediction in zip(rule.data, predictions, strict=True):
        result = result + factor * prediction
    return result if noise is None else result + rule.noise * noise


def sa_solver_sample(
    velocity: Callable[[Tensor, float], Tensor],
    x: Float[Tensor, "n ..."],
    times: Sequence[float] | Float[Tensor, "t"],
    noise: Callable[[int], Tensor] | None = None,
    tau: Callable[[float], float] = lambda t: 0.0,
) -> Float[Tensor, "n ..."]:
    """Clean latents from noise by n network calls, n = len(times) - 1; the last transition, to 0, is the last data
    prediction.

    Args:
        velocity: the network's velocity at (latents, time).
        x: pure noise, float32 or float64.
        times: grid of `sa_solver_times`.
        noise: standard normal like `x` for transition j = 0, 1, ...; asked once for each noisy transition, None
            where there is none.
        tau: noise level at the time a transition goes to.

    Raises:
        ValueError: a noisy transition without `noise`.
    """
    grid = [float(t) for t in times]
    values = [clean_from_velocity(x, velocity(x, grid[0]), grid[0])]  # data prediction at each time so far
    for j, (s, t) in enumerate(pairwise(grid[:-1])):
        level = tau(t)
        draw = _noise_of(j, t, level, noise)
        known = range(j, max(j - 2, -1), -1)  # newest first
        rule = transition(s, t, [grid[i] for i in known], level)
        predicted = _apply(rule, x, [values[i] for i in known], draw)
        values.append(clean_from_velocity(predicted, velocity(predicted, t), t))
        correction = transition(s, t, [t, s], level)
        x = _apply(correction, x, [values[j + 1], values[j]], draw) if j > 0 else predicted  # first: as predicted
    return values[-1]


def _noise_of(j: int, t: float, level: float, noise: Callable[[int], Tensor] | None) -> Tensor | None:
    if level == 0:
        return None
    if noise is None:
        raise ValueError(f"tau is {level} at t = {t:.4f}, a random transition: hand in `noise`, or a tau that is 0")
    return noise(j)
