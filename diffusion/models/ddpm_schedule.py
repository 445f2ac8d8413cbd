"""Noise schedule and sampling times of the diffusion models, from the scheduler that diffusers ships with the pipeline.

Whichever sampler a folder names (PNDM, Euler, DPM-Solver ...), its configuration describes the same noise schedule, and
diffusers' DDIM scheduler reads it. Time is discrete time / number of training times, see `diffusion.paths.DdpmPath`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.models.locate import ModelError
from diffusion.paths import DDPM_PREDICTIONS, DdpmPath

_NEVER_CLIPPED = ("clip_sample", "thresholding")


def ddpm_path(scheduler: Any, source: str) -> DdpmPath:  # Any: any scheduler of diffusers
    """The noise schedule that the network was trained on, and what its output means.

    A schedule that was rescaled to end in pure noise ("zero terminal SNR") has abar = 0 at its last time.

    Args:
        scheduler: of the pipeline.
        source: where the pipeline came from, for messages.

    Raises:
        ModelError: no noise schedule, an output that is unknown, latents that are clipped while sampling, or noise
            prediction at a time that is all noise, where it says nothing about the picture.
    """
    config, name = scheduler.config, f"The scheduler {type(scheduler).__name__} of {source!r}"
    if not (config.get("beta_schedule") or config.get("trained_betas")):
        raise ModelError(
            f"{name} has no noise schedule (`beta_schedule`); expected one of a diffusion model.",
            way_out="Use the scheduler that the checkpoint was published with.",
        )
    if config.get("prediction_type", "epsilon") not in DDPM_PREDICTIONS:
        raise ModelError(
            f"{name} says prediction_type {config['prediction_type']!r}; expected one of {sorted(DDPM_PREDICTIONS)}.",
            way_out="Models whose network predicts something else are not supported.",
        )
    clipped = [setting for setting in _NEVER_CLIPPED if config.get(setting)]
    if clipped:
        raise ModelError(
            f"{name} clips the predicted clean latents ({', '.join(clipped)}); no step rule here does.",
            way_out="Latents have no fixed range: set it to false in scheduler/scheduler_config.json.",
        )
    ddim = _ddim(scheduler)
    path = DdpmPath(ddim.alphas_cumprod.detach().clone(), ddim.config["prediction_type"])
    if path.prediction_type == "epsilon" and path.abars[-1] <= 0:
        raise ModelError(
            f"{name} ends in pure noise (abar = 0) while the network predicts the noise: at that time its output "
            "would say nothing about the picture, and the clean latent would be 0/0.",
            way_out="Such schedules go with prediction_type `v_prediction`; else set rescale_betas_zero_snr to false.",
        )
    return path


def ddim_times(scheduler: Any, num_inference_steps: int, source: str) -> Float[Tensor, "t"]:
    """The DDIM scheduler's own times over the number of training times, then 0; float32 on the CPU.

    Spacing (`leading`, `trailing`, `linspace`) and `steps_offset` are those of the scheduler's configuration. Every
    step goes to the next time of the list and the last one to discrete time 0, whose latents still have a little noise
    (standard deviation 0.03 for Stable Diffusion), also where the configuration says `set_alpha_to_one`. Where a
    spacing ends at discrete time 0 already, that is where the last step goes: there would be nothing left to do.

    Args:
        scheduler: of the pipeline.
        num_inference_steps: n.
        source: where the pipeline came from, for messages.

    Raises:
        ModelError: more steps than the schedule has times.
    """
    ddim = _ddim(scheduler)
    training_times = ddim.config["num_train_timesteps"]
    steps = _discrete_times(ddim, num_inference_steps)
    if len(steps) and steps[-1] == 0:
        steps = _discrete_times(ddim, num_inference_steps + 1)
    else:
        steps = torch.cat([steps, torch.zeros(1, dtype=torch.int64)])
    decreasing = bool((steps.diff() < 0).all()) and 0 < steps[0] < training_times
    if len(steps) != num_inference_steps + 1 or not decreasing:
        raise ModelError(
            f"{num_inference_steps} steps do not fit the schedule of {source!r}, which has {training_times} times.",
            way_out="Lower `rollout.num_inference_steps` and `evaluation.num_inference_steps`.",
        )
    return (steps.double() / training_times).float()


def _ddim(scheduler: Any) -> DDIMScheduler:
    # One scheduler; diffusers annotates that more might be asked for.
    return cast("DDIMScheduler", DDIMScheduler.from_config(scheduler.config))


def _discrete_times(ddim: DDIMScheduler, count: int) -> Int[Tensor, "t"]:
    """`count` discrete times, or none where the schedule has fewer."""
    if count > ddim.config["num_train_timesteps"]:
        return torch.zeros(0, dtype=torch.int64)
    ddim.set_timesteps(count)
    return ddim.timesteps.to("cpu", torch.int64)
