"""Stable Diffusion 1.x and 2.x: every diffusers folder of class `StableDiffusionPipeline`.

What the network predicts (the noise, or v) differs between checkpoints of the family and is read from the scheduler's
configuration. The safety checker is never loaded: it would black out pictures behind the reward's back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.base import Conditioning
from diffusion.models.ddpm_schedule import ddim_times, ddpm_path
from diffusion.models.files import halved_by
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.targets import UNET
from diffusion.models.unet import check_unet, described, last_weight, native_latents
from diffusion.paths import DdpmPath

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from diffusion.config.models import StableDiffusionModel


class StableDiffusion(DiffusionPipelineModel):
    """A frozen Stable Diffusion 1 or 2 pipeline around one trainable U-Net.

    Args:
        pipeline: the loaded pipeline.
        source: where it came from, for messages.

    Attributes:
        schedule: the noise schedule, which is the path.
    """

    pipeline_class = "StableDiffusionPipeline"
    part = "unet"
    targets = UNET

    def __init__(self, pipeline: StableDiffusionPipeline, source: str = "") -> None:
        check_unet(pipeline.unet, pipeline.vae.config["latent_channels"], source)
        self.schedule = ddpm_path(pipeline.scheduler, source)
        super().__init__(pipeline, source)

    @classmethod
    def _left_out(cls, config: StableDiffusionModel) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """DDIM's times, see `ddim_times`; the resolution changes nothing.

        Raises:
            ModelError: more steps than the schedule has times.
        """
        return ddim_times(self.pipeline.scheduler, num_inference_steps, self.source)

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Conditioning:
        embeddings, _ = self.pipeline.encode_prompt(
            prompt, self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Conditioning({"embeddings": embeddings})

    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.pipeline.unet.conv_in.weight.dtype  # of the base; adapters are always float32
        return network(
            x_t.to(dtype),
            self.schedule.index(t),
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            return_dict=False,
        )[0]

    def _path(self) -> DdpmPath:
        return self.schedule

    def _latent_size(self) -> tuple[int, int]:
        return native_latents(self.network)

    def _patch_size(self) -> int:
        return halved_by(self.pipeline.unet.config.block_out_channels)

    def _last_weight(self) -> Tensor:
        return last_weight(self.network)

    def _size(self) -> dict[str, str]:
        return {**described(self.network), "prediction": self.schedule.prediction_type}
