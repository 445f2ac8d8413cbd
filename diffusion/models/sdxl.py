"""Stable Diffusion XL: every diffusers folder of class `StableDiffusionXLPipeline`.

A prompt is the states of two text encoders side by side, and the second one's pooled state. The network is also told
the size of the picture: the size it had before scaling and the target's, both the drawn resolution, and a crop at 0, 0,
as the pipeline's own call does.
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
    from diffusers import StableDiffusionXLPipeline

    from diffusion.config.models import SdxlModel


class StableDiffusionXL(DiffusionPipelineModel):
    """A frozen Stable Diffusion XL pipeline around one trainable U-Net.

    Args:
        pipeline: the loaded pipeline.
        source: where it came from, for messages.

    Attributes:
        schedule: the noise schedule, which is the path.
    """

    pipeline_class = "StableDiffusionXLPipeline"
    part = "unet"
    targets = UNET

    def __init__(self, pipeline: StableDiffusionXLPipeline, source: str = "") -> None:
        check_unet(pipeline.unet, pipeline.vae.config["latent_channels"], source)
        self.schedule = ddpm_path(pipeline.scheduler, source)
        super().__init__(pipeline, source)

    @classmethod
    def _left_out(cls, config: SdxlModel) -> dict[str, Any]:
        return {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """DDIM's times, see `ddim_times`; the resolution changes nothing.

        Raises:
            ModelError: more steps than the schedule has times.
        """
        return ddim_times(self.pipeline.scheduler, num_inference_steps, self.source)

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Conditioning:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Conditioning({"embeddings": embeddings, "pooled": pooled})

    def _unconditional(self, like: Conditioning) -> Conditioning:
        """Zeros where the pipeline is configured so (SDXL 1.0 is), else the empty prompt.

        An empty prompt that the user gives is encoded all the same, as the pipeline's own call does.
        """
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return super()._unconditional(like)
        return Conditioning({name: torch.zeros_like(tensor) for name, tensor in like.tensors.items()})

    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.pipeline.unet.conv_in.weight.dtype  # of the base; adapters are always float32
        factor = self.pipeline.vae_scale_factor
        added = {
            "text_embeds": conditioning["pooled"].to(dtype),
            "time_ids": size_ids(len(x_t), x_t.shape[-2] * factor, x_t.shape[-1] * factor, x_t.device),
        }
        return network(
            x_t.to(dtype),
            self.schedule.index(t),
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def _path(self) -> DdpmPath:
        return self.schedule

    def _latent_size(self) -> tuple[int, int]:
        return native_latents(self.network)

    def _patch_size(self) -> int:
        return halved_by(self.pipeline.unet.config.block_out_channels)

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return super()._unscaled(latents * std) + mean

    def _scaled(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return super()._scaled(latents - mean) / std

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the channels, which some autoencoders of the family have beside the scale."""
        config = self.pipeline.vae.config
        given = (config.get("latents_mean"), config.get("latents_std"))
        values = (0.0, 1.0) if None in given else given
        mean, std = (torch.tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1, 1) for value in values)
        return mean, std

    def _last_weight(self) -> Tensor:
        return last_weight(self.network)

    def _size(self) -> dict[str, str]:
        return {**described(self.network), "prediction": self.schedule.prediction_type}


def size_ids(rows: int, height: int, width: int, device: torch.device) -> Float[Tensor, "n 6"]:
    """What the network is told of the picture's size: original height and width, crop top and left, target size.

    Podell et al., "SDXL", arXiv:2307.01952, section 2.2 (micro-conditioning). Pixels, float32 also where the network is
    not: bfloat16 would round 1000 pixels.
    """
    return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=device).expand(rows, 6)
