"""Noise final latents again and ask policies what they predict there: what every forward-process method does.

    x_t = path.noised(x0, eps, t),    m = network(x_t, t, c),    target = path.target(x0, eps, t)

Times and noise of a row are keyed by (seed, step, row number): any pass over a row, under whatever weights and in
whatever micro-batch, sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.random import keyed_normal
from diffusion.config import DiffusionRun
from diffusion.config.times import NoiseScheduleTimes, Times
from diffusion.losses.awm import matching_error
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.paths import DdpmPath, FlowPath
from diffusion.timesteps import draw_times

if TYPE_CHECKING:
    from align.engine.adapters import Policy

FLOW_TIMES = 1000
"""Discrete times on which flow models are trained."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Where policies are compared. Rows are time-major: all latents at their first time, then at their second, ...

    Attributes:
        times: t of each draw and row.
        noise: eps of each row.
        clean: x0 of each row, repeated over draws.
        x_t: the noised latents.
    """

    times: Float[Tensor, "t b"]
    noise: Float[Tensor, "m c h w"]
    clean: Float[Tensor, "m c h w"]
    x_t: Float[Tensor, "m c h w"]


@singledispatch
def trained_times(path: Any, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The times that a path has, nearest to `t` (`Any`: the paths)."""
    raise TypeError(f"no times are known for {type(path).__name__}")


@trained_times.register
def _(path: FlowPath, t: Tensor) -> Tensor:
    return t


@trained_times.register
def _(path: DdpmPath, t: Tensor) -> Tensor:
    last = len(path.abars) - 1
    return (path.index(t).clamp_max(last).double() / len(path.abars)).to(t)


@singledispatch
def noise_schedule(path: Any) -> Float[Tensor, "steps"]:
    """All times of pre-training, decreasing (`Any`: the paths)."""
    raise TypeError(f"no times are known for {type(path).__name__}")


@noise_schedule.register
def _(path: FlowPath) -> Tensor:
    return torch.arange(FLOW_TIMES, 0, -1) / FLOW_TIMES


@noise_schedule.register
def _(path: DdpmPath) -> Tensor:
    return torch.arange(len(path.abars) - 1, -1, -1) / len(path.abars)


@singledispatch
def _schedule(times: Any, model: DiffusionModel, config: DiffusionRun) -> Float[Tensor, "steps"]:
    """The discrete times that a density draws from (`Any`: the members of `Times`)."""
    return model.times(config.rollout.num_inference_steps, config.rollout.resolution)


@_schedule.register
def _(times: NoiseScheduleTimes, model: DiffusionModel, config: DiffusionRun) -> Tensor:
    return noise_schedule(model.path)


class Prober:
    """Makes probes and passes them through the network.

    Args:
        config: the run's settings.
        times: at which times latents are noised.
        model: the model family.
        policy: the trained network.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self, config: DiffusionRun, times: Times, *, model: DiffusionModel, policy: Policy, timer: Callable
    ) -> None:
        self._times = times
        self._seed, self._guidance = config.seed, config.rollout.guidance_scale
        self._model, self._policy, self._timer = model, policy, timer
        self._grid = _schedule(times, model, config)

    def __call__(self, latents: Float[Tensor, "b c h w"], index: Int[Tensor, "b"], step: int) -> Probe:
        """The probe of these rows in a step.

        Args:
            latents: clean latents.
            index: row number of each; rows of one number share times and noise.
            step: number of the step.
        """
        with self._timer("noise"):
            key, path, device = (self._seed, step), self._model.path, latents.device
            times = trained_times(path, draw_times(self._times, self._grid, index, 1, *key, "train_times")).to(device)
            draws = len(times)
            noise = keyed_normal((draws, *latents.shape[1:]), index, *key, "train_noise").to(device)
            noise = noise.transpose(0, 1).flatten(0, 1)
            clean = latents.repeat(draws, 1, 1, 1)
            return Probe(times=times, noise=noise, clean=clean, x_t=path.noised(clean, noise, times.flatten()))

    def output(
        self, network: nn.Module, probe: Probe, conditioning: Conditioning, prompt_rows: Int[Tensor, "b"]
    ) -> Float[Tensor, "m c h w"]:
        """One pass over all draws, with the rollout's guidance: that is the policy that is trained.

        Args:
            network: with the weights of whichever policy.
            probe: b latents, noised.
            conditioning: rows of prompts.
            prompt_rows: row of `conditioning` for each latent.
        """
        rows = conditioning.select(prompt_rows.repeat(len(probe.times)))
        return self._model.predict(network, probe.x_t, probe.times.flatten(), rows, self._guidance)

    def trained(self, probe: Probe, conditioning: Conditioning, prompt_rows: Int[Tensor, "b"]) -> Tensor:
        """Output of the policy that is trained, with gradient."""
        return self.output(self._policy.network, probe, conditioning, prompt_rows)

    def reference(self, probe: Probe, conditioning: Conditioning, prompt_rows: Int[Tensor, "b"]) -> Tensor:
        """Output of the model as it was before training, without gradient."""
        with self._policy.reference() as network:
            return self.output(network, probe, conditioning, prompt_rows)

    def clean(self, output: Float[Tensor, "m c h w"], probe: Probe) -> Float[Tensor, "m c h w"]:
        """Clean latents that an output implies."""
        return self._model.path.ends(probe.x_t, output, probe.times.flatten()).clean

    def error(self, output: Float[Tensor, "m c h w"], probe: Probe) -> Float[Tensor, "t b"]:
        """Matching error of an output: mean over elements of (m - target)^2, float64."""
        target = self._model.path.target(probe.clean.double(), probe.noise.double(), probe.times.flatten())
        return matching_error(output, target).view_as(probe.times)
