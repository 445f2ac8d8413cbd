"""Run a policy over prompts: noise -> final latents -> pictures. Only the final latents are kept.

Noise is keyed by the sample's global row number, so a picture does not depend on who shares its batch or on the number
of processes (beyond the rounding of batched matrix products).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.random import keyed_normal
from diffusion.config import FlowSdeSampler, OdeSampler, SaSolverSampler
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.sa_solver import sa_solver_sample, sa_solver_times, tau_window
from diffusion.samplers import flow_sde_step, ode_step

if TYPE_CHECKING:
    from PIL.Image import Image

Velocity = Callable[[Tensor, float], Tensor]
"""The (guided) velocity of all rows at (latents, time)."""

Noise = Callable[[int], Tensor]
"""Standard normal noise of step j = 0, 1, ..., shaped like the latents."""


@singledispatch
def sample(sampler: object, velocity: Velocity, x: Tensor, sigmas: Float[Tensor, "t"], noise: Noise) -> Tensor:
    """Clean latents from pure noise `x`, by the step rule that the class of `sampler` names.

    Args:
        sampler: settings of the step rule.
        velocity: the network's velocity.
        x: pure noise.
        sigmas: the model's own schedule, n + 1 times from 1 to 0; the network is called n times.
        noise: asked for random steps only.
    """
    raise TypeError(f"no step rule for {type(sampler).__name__}")


@sample.register
def _(sampler: OdeSampler, velocity: Velocity, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    times = sigmas.tolist()
    for t, t_next in pairwise(times):
        x = ode_step(x, velocity(x, t), t, t_next).prev_sample
    return x


@sample.register
def _(sampler: FlowSdeSampler, velocity: Velocity, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    times = sigmas.tolist()
    for j, (t, t_next) in enumerate(pairwise(times)):
        step = flow_sde_step(
            x,
            velocity(x, t),
            t,
            t_next,
            noise_level=sampler.noise_level,
            t_second=times[1],
            noise=noise(j) if sampler.noise_level else None,
        )
        x = step.prev_sample
    return x


@sample.register
def _(sampler: SaSolverSampler, velocity: Velocity, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    tau = tau_window(sampler.noise_level, sampler.noise_from, sampler.noise_until)
    return sa_solver_sample(velocity, x, sa_solver_times(sigmas), noise, tau)


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How latents are drawn; rollout and evaluation fill it from their own sections.

    Attributes:
        sampler: the step rule's settings.
        num_inference_steps: network steps.
        guidance_scale: classifier-free guidance; 1 = none.
        resolution: pixels, None for the model's own.
        batch_size: rows sampled at once; changes speed and memory, not the result.
    """

    sampler: object
    num_inference_steps: int
    guidance_scale: float = 1.0
    resolution: int | None = None
    batch_size: int = 32


@torch.no_grad()
def sample_latents(
    model: DiffusionModel,
    network: nn.Module,
    conditioning: Conditioning,
    index: Int[Tensor, "n"],
    settings: SamplerSettings,
    *key: int | str,
) -> Float[Tensor, "n c h w"]:
    """Final latents x0 of n rows, in one batch, float32 on the model's device.

    Args:
        model: the model family.
        network: its denoiser, with the policy's weights in it.
        conditioning: one row per sample.
        index: global row numbers; they key the noise together with `key`.
        settings: step rule, steps, guidance, resolution.
        key: what the draw is for: (seed, step) in training.
    """
    shape = model.latent_shape(settings.resolution)

    def noise(*purpose: int | str) -> Tensor:
        return keyed_normal(shape, index, *key, *purpose).to(model.device)

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=x.device)
        return model.predict(network, x, times, conditioning, settings.guidance_scale)

    return sample(
        settings.sampler,
        velocity,
        noise("latents"),
        model.times(settings.num_inference_steps, settings.resolution),
        lambda j: noise("rollout_noise", j),
    )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One finished batch of a rollout.

    Attributes:
        rows: positions of its samples among the rows that were asked for.
        latents: final latents x0, what the denoiser sees, before the autoencoder.
        images: their pictures.
    """

    rows: Int[Tensor, "b"]
    latents: Float[Tensor, "b c h w"]
    images: list[Image]


def roll_out(
    model: DiffusionModel,
    network: nn.Module,
    conditioning: Conditioning,
    prompt_rows: Int[Tensor, "n"],
    index: Int[Tensor, "n"],
    settings: SamplerSettings,
    timer: Callable,
    *key: int | str,
) -> Iterator[Drawn]:
    """Sample and decode all rows, batch by batch, so that finished batches can be scored while the next is sampled.

    Args:
        model: the model family.
        network: its denoiser, with the policy's weights in it.
        conditioning: one row per distinct prompt.
        prompt_rows: row of `conditioning` for each sample.
        index: global row number of each sample.
        settings: how latents are drawn, and how many at once.
        timer: `timer(stage)` is a context manager; stages "rollout" and "decode".
        key: what the draw is for.
    """
    for rows in torch.arange(len(index)).split(settings.batch_size):
        with timer("rollout"):
            latents = sample_latents(
                model, network, conditioning.select(prompt_rows[rows]), index[rows], settings, *key
            )
        with timer("decode"):
            images = model.decode(latents)
        yield Drawn(rows=rows, latents=latents, images=images)
