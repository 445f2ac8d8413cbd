"""Every family's miniature, and how its own pipeline is called: what `test_every_family` runs over.

A new family is one entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL.Image import Image
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from diffusion.config.models import (
    FluxModel,
    Model,
    QwenImageModel,
    SanaModel,
    Sd3Model,
    SdxlModel,
    StableDiffusionModel,
)
from diffusion.models.base import Conditioning
from diffusion.models.flux import Flux
from diffusion.models.packing import pack
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.qwen_image import QwenImage, unread_layers
from diffusion.models.sana import Sana
from diffusion.models.sd3 import StableDiffusion3
from diffusion.models.sdxl import StableDiffusionXL
from diffusion.models.stable_diffusion import StableDiffusion
from diffusion.paths import DdpmPath
from diffusion.samplers import ddim_step, ode_step

from .miniature import PROMPTS, miniature_pipeline
from .miniature_flux import T5_LENGTH, miniature_flux_pipeline
from .miniature_qwen_image import LENGTH as QWEN_LENGTH
from .miniature_qwen_image import guided_squares, miniature_qwen_image_pipeline, qwen_guidance
from .miniature_sana import LENGTH as GEMMA_LENGTH
from .miniature_sana import miniature_sana_pipeline
from .miniature_unet import miniature_sd2_pipeline, miniature_sd15_pipeline, miniature_sdxl_pipeline

SIDE = 8  # latent pixels along a side of every miniature
STEPS = 5  # divides 1000: elsewhere diffusers' DDIM steps do not end where the next one begins
INDEX = torch.arange(len(PROMPTS))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family under test.

    Attributes:
        name: for the test's name.
        pipeline: seed -> random miniature pipeline.
        model: the model family's class.
        config: its settings' class.
        settings: further settings, with which the class is built and loaded.
        call: further arguments of the pipeline's own call.
        latents: our latents as that call takes them.
        guidance: scales that are compared with that call.
        guided_twice: whether guidance is a second pass, which is skipped at scale 1.
        guided_call: the arguments of that call for a scale.
        guided: the pipeline's formula, of the outputs without and with the prompt and the scale.
        unread: layers of the blocks that no named set of adapters takes, because nothing reads them.
    """

    name: str
    pipeline: Callable[..., Any]
    model: type[DiffusionPipelineModel]
    config: Callable[..., Model]
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    latents: Callable[[Tensor], Tensor] = lambda latents: latents
    guidance: tuple[float, ...] = (1.0, 3.0)
    guided_twice: bool = True
    guided_call: Callable[[float], dict[str, Any]] = lambda scale: {"guidance_scale": scale}
    guided: Callable[[Tensor, Tensor, float], Tensor] = lambda without, given, scale: (
        without + scale * (given - without)
    )
    unread: tuple[str, ...] = ()

    def around(self, pipeline: Any) -> DiffusionPipelineModel:
        """The model around a pipeline."""
        return self.model(pipeline, source="miniature", **self.settings)

    def build(self, seed: int = 0) -> DiffusionPipelineModel:
        """The model around a fresh miniature."""
        return self.around(self.pipeline(seed))

    def settings_of(self, path: object, **changes: Any) -> Model:
        """Settings that load a saved miniature."""
        return self.config(path=str(path), **{"dtype": "float32", **self.settings, **changes})

    def stock_pictures(self, model: DiffusionPipelineModel, guidance_scale: float) -> list[Image]:
        """Pictures of the pipeline's own call from the noise of `noise`; U-Nets with the deterministic DDIM sampler."""
        pipeline = model.pipeline
        if isinstance(model.path, DdpmPath):
            pipeline.scheduler = DDIMScheduler.from_config(
                pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False
            )
        return pipeline(
            list(PROMPTS),
            num_inference_steps=STEPS,
            **self.guided_call(guidance_scale),
            latents=self.latents(noise(model)),
            height=resolution(model),
            width=resolution(model),
            **self.call,
        ).images


FAMILIES = (
    Family(name="sd15", pipeline=miniature_sd15_pipeline, model=StableDiffusion, config=StableDiffusionModel),
    Family(name="sd2_v", pipeline=miniature_sd2_pipeline, model=StableDiffusion, config=StableDiffusionModel),
    Family(name="sdxl", pipeline=miniature_sdxl_pipeline, model=StableDiffusionXL, config=SdxlModel),
    Family(
        name="sd3",
        pipeline=miniature_pipeline,
        model=StableDiffusion3,
        config=Sd3Model,
        settings={"max_sequence_length": 0},
        call={"max_sequence_length": 0},
    ),
    Family(
        name="flux",
        pipeline=miniature_flux_pipeline,
        model=Flux,
        config=FluxModel,
        settings={"max_sequence_length": T5_LENGTH},
        call={"max_sequence_length": T5_LENGTH},
        latents=pack,
        guided_twice=False,
    ),
    Family(
        name="sana",
        pipeline=miniature_sana_pipeline,
        model=Sana,
        config=SanaModel,
        settings={"max_sequence_length": GEMMA_LENGTH, "instruction": False},
        call={
            "max_sequence_length": GEMMA_LENGTH,
            "complex_human_instruction": None,
            "use_resolution_binning": False,
        },
    ),
    Family(
        name="qwen_image",
        pipeline=miniature_qwen_image_pipeline,
        model=QwenImage,
        config=QwenImageModel,
        settings={"max_sequence_length": QWEN_LENGTH},
        call={"max_sequence_length": QWEN_LENGTH},
        latents=pack,
        guided_call=qwen_guidance,
        guided=guided_squares,
        unread=unread_layers(2),
    ),
)


def resolution(model: DiffusionPipelineModel) -> int:
    """Pixels of a miniature's pictures."""
    return SIDE * model.pipeline.vae_scale_factor


def noise(model: DiffusionPipelineModel) -> Tensor:
    """Initial latents, one for each of `PROMPTS`; those of a rollout whose key is "start"."""
    return keyed_normal(model.latent_shape(resolution(model)), INDEX, "start", "latents")


@torch.no_grad()
def drawn(
    model: DiffusionPipelineModel, network: nn.Module | None = None, guidance_scale: float = 1.0, rows: Tensor = INDEX
) -> Tensor:
    """Final latents of the deterministic sampler of the model's path, step by step."""
    network = network or model.network
    conditioning, x = model.encode(PROMPTS).select(rows), noise(model)[rows]
    times = model.times(STEPS, resolution(model))
    for t, t_next in pairwise(times):
        output = model.predict(network, x, t.expand(len(x)), conditioning, guidance_scale)
        x = step(model, x, output, t, t_next)
    return x


def step(model: DiffusionPipelineModel, x: Tensor, output: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """One deterministic step: Euler on a flow, DDIM with eta 0 else."""
    path = model.path
    if isinstance(path, DdpmPath):
        kind = path.prediction_type
        return ddim_step(x, output, path.abar(t), path.abar(t_next), prediction_type=kind, eta=0.0).prev_sample
    return ode_step(x, output, t, t_next).prev_sample


def probe(model: DiffusionPipelineModel) -> tuple[Tensor, Tensor, Conditioning]:
    """Latents, a time for each, prompts."""
    x = keyed_normal(model.latent_shape(resolution(model)), INDEX, "probe")
    return x, model.times(STEPS, resolution(model))[1:5], model.encode(PROMPTS)


def adapted(model: DiffusionPipelineModel, targets: str = "attention") -> Policy:
    """A fresh adapter: rank 2, alpha 8, so that a reader who takes alpha = rank is off by a factor of 4."""
    return Policy.lora(model.network, LoraConfig(rank=2, alpha=8.0), model.lora_targets(targets), seed=0)


@torch.no_grad()
def disturb(policy: Policy, scale: float = 0.3) -> None:
    """Weights as after some training."""
    for number, weight in enumerate(policy.trainable_parameters().values()):
        weight.add_(scale * keyed_normal(tuple(weight.shape), torch.tensor([number]), "disturb")[0])
