"""Sampling times of flow models, from the scheduler that diffusers ships with the pipeline."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.models.locate import ModelError


def scheduler_sigmas(
    scheduler: Any,  # any flow-matching scheduler of diffusers
    num_inference_steps: int,
    image_tokens: int,
    *,
    source: str,
    sigmas: list[float] | None = None,
) -> Float[Tensor, "t"]:
    """The scheduler's own times, from exactly 1 down to 0, float32 on the CPU.

    Args:
        scheduler: of the pipeline; a copy is asked, because schedulers carry a step index.
        num_inference_steps: n.
        image_tokens: tokens of a picture, which a dynamic shift grows with.
        source: where the pipeline came from, for messages.
        sigmas: unshifted times, for families whose pipeline hands its own to the scheduler.

    Raises:
        ModelError: the schedule does not begin at exactly 1, which the samplers rely on.
    """
    scheduler = copy.deepcopy(scheduler)
    options: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting", False):
        options["mu"] = dynamic_mu(scheduler.config, image_tokens)
    if sigmas is None:
        scheduler.set_timesteps(num_inference_steps, **options)
    else:
        scheduler.set_timesteps(sigmas=sigmas, **options)
    times = scheduler.sigmas.detach().clone().to("cpu", torch.float32)
    if times[0] != 1:
        raise ModelError(
            f"The scheduler {type(scheduler).__name__} of {source!r} begins at sigma {float(times[0])}; "
            "expected exactly 1.",
            way_out="Use the pipeline's FlowMatchEulerDiscreteScheduler with its original configuration.",
        )
    return times


def shifted_times(num_inference_steps: int, shift: float) -> Float[Tensor, "t"]:
    """Evenly spaced times 1, (n - 1)/n, ..., 0, shifted towards noise: t becomes shift t / (1 + (shift - 1) t).

    The schedule of DanceGRPO and MixGRPO (shift 3 for FLUX, whatever the size of the picture); float32 on the CPU.
    """
    times = torch.linspace(1.0, 0.0, num_inference_steps + 1, dtype=torch.float64)
    return (shift * times / (1 + (shift - 1) * times)).float()


def dynamic_mu(config: Mapping[str, Any], image_tokens: int) -> float:
    """Logarithm of the dynamic shift: linear in the number of picture tokens."""
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (high - low)
    return config["base_shift"] + slope * (image_tokens - low)


def uniform_sigmas(num_inference_steps: int) -> list[float]:
    """Evenly spaced times 1, (n - 1)/n, ..., 1/n, which the pipelines of FLUX and its kin hand to their scheduler."""
    return np.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()
