"""Where on the path: schedules of samplers, the shift, and the densities of training times.

A schedule of n steps is n + 1 decreasing times from 1 (noise) to 0 (clean). Densities are pure functions of explicit
uniforms in [0, 1); `draw_times` feeds them from keyed generators.
"""

from __future__ import annotations

import math
from functools import singledispatch

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.engine.random import generator
from diffusion.config import DiscreteTimes, LogitNormalTimes, UniformTimes
from diffusion.config.times import NoiseScheduleTimes, RolloutTimes, Times
from diffusion.strata import discrete_strata


def shift(t: Float[Tensor, "*shape"], factor: float) -> Float[Tensor, "*shape"]:
    """Shifted time s t / (1 + (s - 1) t): moves times towards the noise for s > 1; 0 and 1 stay.

    References:
        Esser et al., Scaling Rectified Flow Transformers, arXiv:2403.03206, section 5.3.2, equation 23.
    """
    return factor * t / (1 + (factor - 1) * t)


def flow_match_sigmas(steps: int, shift_factor: float, *, train_times: int = 1000) -> Float[Tensor, "t"]:
    """Inference schedule of SD3-family models, as diffusers' `FlowMatchEulerDiscreteScheduler` computes it.

    The scheduler shifts twice: its smallest time is shift(1 / train_times), and the even grid from 1 to that value
    is shifted again. Published results used these numbers, so they are kept.

    Args:
        steps: number of network steps n.
        shift_factor: the scheduler's static `shift`; 3 for SD3 and SD3.5.
        train_times: discrete training times of the scheduler.

    Returns:
        n + 1 times in float64, strictly decreasing, the first exactly 1 and the last 0.

    Raises:
        ValueError: fewer than one step.
    """
    _require_steps(steps)
    lowest = float(shift(torch.tensor(1 / train_times, dtype=torch.float64), shift_factor))
    grid = torch.linspace(1, lowest, steps, dtype=torch.float64)
    return torch.cat([shift(grid, shift_factor), grid.new_zeros(1)])


def flux_shift(image_tokens: int) -> float:
    """Shift factor e^mu of FLUX.1-dev, mu = 0.5 + (1.15 - 0.5) (L - 256) / (4096 - 256) for L image tokens."""
    return math.exp(0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256))


def flux_sigmas(steps: int, image_tokens: int) -> Float[Tensor, "t"]:
    """Inference schedule of FLUX.1-dev: the even grid 1 ... 1/n, shifted by a factor that grows with the picture.

        e^mu / (e^mu + 1/t - 1) = shift(t, e^mu)

    Raises:
        ValueError: fewer than one step.
    """
    _require_steps(steps)
    grid = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    return torch.cat([shift(grid, flux_shift(image_tokens)), grid.new_zeros(1)])


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"expected at least one step, found {steps}")


# --- densities of training times -------------------------------------------------------------------------------------


def discrete_times(
    uniforms: Float[Tensor, "t b"], sigmas: Float[Tensor, "steps"], *, initial: str = "skip", until: float = 0.9
) -> Float[Tensor, "t b"]:
    """Times of the rollout's own schedule, one from each stratum: index = lower + floor(u (upper - lower)).

    Args:
        uniforms: in [0, 1), one for each time and sample.
        sigmas: the rollout's schedule, n + 1 times.
        initial: see `discrete_strata`.
        until: see `discrete_strata`.

    References:
        Xue et al., Advantage Weighted Matching, arXiv:2509.25050; strata of the released configurations.
    """
    strata = torch.tensor(discrete_strata(len(sigmas) - 1, len(uniforms), initial, until), device=uniforms.device)
    lower, upper = strata[:, :1], strata[:, 1:]
    index = lower + (uniforms * (upper - lower)).floor().long()
    return sigmas.to(uniforms.device)[index.minimum(upper - 1)]  # u just below 1 may round up to the width


def _stratified(uniforms: Float[Tensor, "t b"]) -> Float[Tensor, "t b"]:
    """(k + u_k) / T: row k falls into the k-th of T equal parts of [0, 1)."""
    rows = torch.arange(len(uniforms), dtype=uniforms.dtype, device=uniforms.device)[:, None]
    return (rows + uniforms) / len(uniforms)


def uniform_times(
    uniforms: Float[Tensor, "t b"], *, lowest: float = 0.2, shift_factor: float = 3.0
) -> Float[Tensor, "t b"]:
    """Stratified uniform times in [lowest, 1], then shifted.

    Note:
        The released code also shuffles the strata of a sample. Every loss here is a mean over all T times, which
        no order changes, so we keep them ascending.
    """
    return shift(lowest + (1 - lowest) * _stratified(uniforms), shift_factor)


def logit_normal_times(
    uniforms: Float[Tensor, "t b"],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    shift_factor: float = 3.0,
    lowest: float = 0.01,
) -> Float[Tensor, "t b"]:
    """Stratified logit-normal times, max(shift(sigmoid(mean + std Phi^-1(u))), lowest).

    References:
        Esser et al., arXiv:2403.03206, section 3.1, equation 19.
    """
    normal = mean + std * torch.special.ndtri(_stratified(uniforms))
    return shift(normal.sigmoid(), shift_factor).clamp_min(lowest)


# --- from settings and keys to times ---------------------------------------------------------------------------------


@singledispatch
def times_from_uniforms(
    config: Times,
    uniforms: Float[Tensor, "t b"],
    sigmas: Float[Tensor, "steps"],
) -> Float[Tensor, "t b"]:
    """The density that the class of `config` names, at these uniforms."""
    raise TypeError(f"no density of training times for {type(config).__name__}")


@times_from_uniforms.register
def _(config: DiscreteTimes, uniforms: Tensor, sigmas: Tensor) -> Tensor:
    return discrete_times(uniforms, sigmas, initial=config.initial, until=config.until)


@times_from_uniforms.register
def _(config: RolloutTimes, uniforms: Tensor, sigmas: Tensor) -> Tensor:
    return discrete_times(uniforms, sigmas, initial="allow", until=1.0)


@times_from_uniforms.register
def _(config: UniformTimes, uniforms: Tensor, sigmas: Tensor) -> Tensor:
    return uniform_times(uniforms, lowest=config.lowest, shift_factor=config.shift)


@times_from_uniforms.register
def _(config: LogitNormalTimes, uniforms: Tensor, sigmas: Tensor) -> Tensor:
    return logit_normal_times(
        uniforms, mean=config.mean, std=config.std, shift_factor=config.shift, lowest=config.lowest
    )


@times_from_uniforms.register
def _(config: NoiseScheduleTimes, uniforms: Tensor, sigmas: Tensor) -> Tensor:
    index = (_stratified(uniforms) * len(sigmas)).long().clamp_max(len(sigmas) - 1)
    return sigmas[index]


_DRAWN_FOR_EACH_SAMPLE = (UniformTimes,)


def draw_times(
    config: Times,
    sigmas: Float[Tensor, "steps"],
    index: Int[Tensor, "b"],
    block: int,
    *key: int | str,
) -> Float[Tensor, "t b"]:
    """Training times of some samples; a pure function of the key and the samples' global row numbers.

    Samples whose `index // block` is equal share their times, as the micro-batches of the released code do;
    `UniformTimes` draws for each sample.

    Args:
        config: the density and its number of draws T.
        sigmas: the rollout's schedule, n + 1 times; the result has its dtype.
        index: global row number of each sample.
        block: how many neighbouring rows share their times.
        key: what the draw is for: (seed, step, "train_times", ...).
    """
    block = 1 if isinstance(config, _DRAWN_FOR_EACH_SAMPLE) else block
    blocks, position = torch.unique(index.cpu() // block, return_inverse=True)
    uniforms = [torch.rand(config.draws, generator=generator(*key, b), dtype=torch.float64) for b in blocks.tolist()]
    times = times_from_uniforms(config, torch.stack(uniforms, dim=1), sigmas.cpu())
    return times[:, position].to(sigmas)
