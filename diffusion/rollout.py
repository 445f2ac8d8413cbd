"""Run a policy over prompts: noise -> final latents -> pictures, and the trained steps of the way if asked to.

Noise is keyed by the sample's global row number, so a picture does not depend on who shares its batch or on the number
of processes (beyond the rounding of batched matrix products).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.random import keyed_normal
from align.errors import AlignError
from diffusion.chain_steps import StepPlan
from diffusion.config import BranchingConfig, DpmSolverSampler, SaSolverSampler
from diffusion.denoise import Noise, Predict, denoise
from diffusion.dpm_solver import dpm_solver_sample
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.paths import FlowPath, Path
from diffusion.sa_solver import sa_solver_sample, sa_solver_times, tau_window
from diffusion.trajectory import Recorder, Trajectory

if TYPE_CHECKING:
    from PIL.Image import Image


@singledispatch
def sample(
    sampler: object,
    path: Path,
    predict: Predict,
    noise: Noise,
    index: Int[Tensor, "n"],
    times: Float[Tensor, "t"],
    **chain: Any,
) -> Float[Tensor, "n ..."]:
    """Clean latents from noise, by the step rule that the class of `sampler` names.

    Args:
        sampler: settings of the step rule.
        path: of the model.
        predict: the network.
        noise: where noise comes from.
        index: row numbers; they key the noise.
        times: the model's own schedule, n + 1 times; the network is called n times.
        chain: `noisy`, `keys` and `recorder` of `denoise` (Any: each has its own type).

    Raises:
        AlignError: the rule does not fit the path.
    """
    return denoise(sampler, path, predict, noise, index, times.tolist(), **chain)


@sample.register
def _(
    sampler: SaSolverSampler,
    path: Path,
    predict: Predict,
    noise: Noise,
    index: Tensor,
    times: Tensor,
    keys: Tensor | None = None,
    **chain: Any,
) -> Tensor:
    if not isinstance(path, FlowPath) or any(value is not None for value in chain.values()):
        raise AlignError(
            "SA-Solver is for flow models, and its steps have no log-probability.",
            "Set rollout.sampler.kind to ode, flow_sde, dance_sde or cps (flow models), ode or ddim (others).",
        )
    rows = torch.arange(len(index))
    return sa_solver_sample(
        lambda x, t: predict(x, t, rows),
        noise(index if keys is None else keys[:, 0], "latents"),
        sa_solver_times(times),
        lambda j: noise(index if keys is None else keys[:, j + 1], "rollout_noise", j),
        tau_window(sampler.noise_level, sampler.noise_from, sampler.noise_until),
    )


@sample.register
def _(
    sampler: DpmSolverSampler,
    path: Path,
    predict: Predict,
    noise: Noise,
    index: Tensor,
    times: Tensor,
    keys: Tensor | None = None,
    **chain: Any,
) -> Tensor:
    if not isinstance(path, FlowPath) or any(value is not None for value in chain.values()):
        raise AlignError(
            "DPM-Solver is deterministic and for flow models: its steps have no log-probability.",
            "Set rollout.sampler.kind to ode, flow_sde, dance_sde or cps (flow models), ode or ddim (others).",
        )
    rows = torch.arange(len(index))
    start = noise(index if keys is None else keys[:, 0], "latents")
    return dpm_solver_sample(lambda x, t: predict(x, t, rows), start, times)


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


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a method on the chain asks of a rollout.

    Attributes:
        plan: which steps are noisy, and which are kept.
        dtype: precision in which their states are kept.
        reduce: "mean" or "sum" of a step's log-density over latent elements.
        keep_means: whether the means of the transitions are kept.
        branching: how rollouts of a prompt share noise; None = they do not.
        keep_implied: whether the clean latents that the states imply are kept.
    """

    plan: StepPlan
    dtype: torch.dtype = torch.float32
    reduce: str = "mean"
    keep_means: bool = False
    branching: BranchingConfig | None = None
    keep_implied: bool = False

    def recorder(self) -> Recorder:
        """For one batch."""
        return Recorder(self.plan.trained, self.dtype, self.reduce, self.keep_means, self.keep_implied)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Where a batch of rollouts ended, and its trained steps where they were recorded."""

    latents: Float[Tensor, "n c h w"]
    trajectory: Trajectory | None = None


@torch.no_grad()
def walk(
    model: DiffusionModel,
    network: nn.Module,
    conditioning: Conditioning,
    index: Int[Tensor, "n"],
    settings: SamplerSettings,
    *key: int | str,
    keys: Int[Tensor, "n t1"] | None = None,
    recording: Recording | None = None,
) -> Walk:
    """Rollouts of n rows in one batch, float32 on the model's device.

    Args:
        model: the model family.
        network: its denoiser, with the policy's weights in it.
        conditioning: one row per sample.
        index: global row numbers; they key the noise together with `key`.
        settings: step rule, steps, guidance, resolution.
        key: what the draw is for: (seed, step) in training.
        keys: of `branches.noise_keys`, where rows share noise.
        recording: what is kept of the way; None = only its end.
    """
    shape = model.latent_shape(settings.resolution)
    times = model.times(settings.num_inference_steps, settings.resolution)

    def noise(numbers: Tensor, *purpose: int | str) -> Tensor:
        return keyed_normal(shape, numbers, *key, *purpose).to(model.device)

    def predict(x: Tensor, t: float, rows: Tensor) -> Tensor:
        here = conditioning if len(rows) == len(index) else conditioning.select(rows)
        return model.predict(network, x, torch.full((len(x),), t, device=x.device), here, settings.guidance_scale)

    recorder = None if recording is None else recording.recorder()
    latents = sample(
        settings.sampler,
        model.path,
        predict,
        noise,
        index,
        times,
        noisy=None if recording is None else recording.plan.noisy,
        keys=keys,
        recorder=recorder,
    )
    return Walk(latents=latents, trajectory=None if recorder is None else recorder.trajectory(times.tolist()))


def sample_latents(
    model: DiffusionModel,
    network: nn.Module,
    conditioning: Conditioning,
    index: Int[Tensor, "n"],
    settings: SamplerSettings,
    *key: int | str,
) -> Float[Tensor, "n c h w"]:
    """Final latents x0 of n rows, in one batch; arguments as in `walk`."""
    return walk(model, network, conditioning, index, settings, *key).latents


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One finished batch of a rollout.

    Attributes:
        rows: positions of its samples among the rows that were asked for.
        latents: final latents x0, what the denoiser sees, before the autoencoder.
        images: their pictures.
        trajectory: their trained steps, where they were recorded.
    """

    rows: Int[Tensor, "b"]
    latents: Float[Tensor, "b c h w"]
    images: list[Image]
    trajectory: Trajectory | None = None


def roll_out(
    model: DiffusionModel,
    network: nn.Module,
    conditioning: Conditioning,
    prompt_rows: Int[Tensor, "n"],
    index: Int[Tensor, "n"],
    settings: SamplerSettings,
    timer: Callable,
    *key: int | str,
    keys: Int[Tensor, "n t1"] | None = None,
    recording: Recording | None = None,
) -> Iterator[Drawn]:
    """Sample and decode all rows, batch by batch, so that finished batches can be scored while the next is sampled.

    Rows that share noise are put into the same batches as far as they fit, so that their common way is walked once.

    Args:
        model: the model family.
        network: its denoiser, with the policy's weights in it.
        conditioning: one row per distinct prompt.
        prompt_rows: row of `conditioning` for each sample.
        index: global row number of each sample.
        settings: how latents are drawn, and how many at once.
        timer: `timer(stage)` is a context manager; stages "rollout" and "decode".
        key: what the draw is for.
        keys: of `branches.noise_keys` for these rows, where rows share noise.
        recording: what is kept of the way.
    """
    order = torch.arange(len(index)) if keys is None else keys[:, 0].argsort(stable=True)
    for rows in order.split(settings.batch_size):
        with timer("rollout"):
            found = walk(
                model,
                network,
                conditioning.select(prompt_rows[rows]),
                index[rows],
                settings,
                *key,
                keys=None if keys is None else keys[rows],
                recording=recording,
            )
        with timer("decode"):
            images = model.decode(found.latents)
        yield Drawn(rows=rows, latents=found.latents, images=images, trajectory=found.trajectory)
