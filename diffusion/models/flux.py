"""FLUX.1: every diffusers folder of class `FluxPipeline`, guidance-distilled ("dev") or timestep-distilled ("schnell").

Guidance is no second pass here. The dev network has been distilled from a guided one and takes the guidance scale as an
input, next to the time; schnell does not know guidance at all. Classifier-free guidance on top of that ("true CFG" in
diffusers) is not offered: none of the published recipes uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.base import Conditioning
from diffusion.models.flow_schedule import scheduler_sigmas, shifted_times, uniform_sigmas
from diffusion.models.locate import ModelError
from diffusion.models.packing import PATCH, pack, unpack
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.targets import FLUX

if TYPE_CHECKING:
    from diffusers import FluxPipeline

    from diffusion.config.models import FluxModel

T5_TOKENS = 512


class Flux(DiffusionPipelineModel):
    """A frozen FLUX.1 pipeline around one trainable transformer.

    A prompt is T5's states, padded to one length without a mask, and CLIP's pooled state.

    Args:
        pipeline: the loaded pipeline.
        max_sequence_length: tokens of T5's part, padding included; the network sees the padding, so this changes
            pictures.
        source: where the pipeline came from, for messages.
        shift: of evenly spaced sampling times; None = the pipeline's own schedule.
    """

    pipeline_class = "FluxPipeline"
    targets = FLUX

    def __init__(
        self,
        pipeline: FluxPipeline,
        max_sequence_length: int = T5_TOKENS,
        source: str = "",
        shift: float | None = None,
    ) -> None:
        self.max_sequence_length, self.shift = max_sequence_length, shift
        super().__init__(pipeline, source)

    @classmethod
    def _around(cls, pipeline: Any, config: FluxModel) -> Self:
        return cls(pipeline, config.max_sequence_length, config.path, config.shift)

    @property
    def takes_guidance(self) -> bool:
        """Whether the network takes a guidance scale as an input (dev does, schnell does not)."""
        return self.pipeline.transformer.config.guidance_embeds

    def predict(
        self,
        network: nn.Module,
        x_t: Float[Tensor, "n c h w"],
        t: Float[Tensor, "n"],
        conditioning: Conditioning,
        guidance_scale: float = 1.0,
        *,
        detach_unconditional: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """The network's velocity at time t, float32. The guidance scale is an input of the network: one pass always.

        Args:
            network: the network, bare or wrapped (DDP, adapter).
            x_t: noisy latents.
            t: one time per sample, 1 = noise.
            conditioning: one row per sample.
            guidance_scale: what the network is told; scale 1 is an input like any other, not the absence of guidance.
            detach_unconditional: without effect, there is no unconditional pass.

        Raises:
            ModelError: the network does not take a guidance scale, and it is not 1.
        """
        if not self.takes_guidance and guidance_scale != 1.0:
            raise ModelError(
                f"guidance_scale is {guidance_scale:g}, but the network of {self.source!r} does not take one "
                "(guidance_embeds is false, as in FLUX.1-schnell).",
                way_out="Set `rollout.guidance_scale: 1` and `evaluation.guidance_scale: 1`.",
            )
        return self._forward(network, x_t, t, conditioning, guidance_scale).float()

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The scheduler's sigmas from evenly spaced ones, 1 .. 1/n, and 0; dev shifts them by the picture's size.

        With a `shift` of one's own: evenly spaced times shifted by it, whatever the size.

        Raises:
            ModelError: the schedule does not begin at exactly 1, which the samplers rely on.
        """
        if self.shift is not None:
            return shifted_times(num_inference_steps, self.shift)
        _, height, width = self.latent_shape(resolution)
        return scheduler_sigmas(
            self.pipeline.scheduler,
            num_inference_steps,
            height * width // PATCH**2,
            source=self.source,
            sigmas=uniform_sigmas(num_inference_steps),
        )

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Conditioning:
        embeddings, pooled, _ = self.pipeline.encode_prompt(
            prompt, prompt, device=self.device, max_sequence_length=self.max_sequence_length
        )
        # diffusers annotates them like its arguments, which may be left out.
        return Conditioning({"embeddings": cast("Tensor", embeddings), "pooled": cast("Tensor", pooled)})

    def _forward(
        self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: float = 1.0
    ) -> Tensor:
        dtype = self.pipeline.transformer.x_embedder.weight.dtype  # of the base; adapters are always float32
        height, width = x_t.shape[-2:]
        embeddings = conditioning["embeddings"].to(dtype)
        time = t.to(torch.float32)  # the network multiplies by 1000 itself
        tokens = network(
            hidden_states=pack(x_t.to(dtype)),
            timestep=time,
            guidance=torch.full_like(time, guidance_scale) if self.takes_guidance else None,
            encoder_hidden_states=embeddings,
            pooled_projections=conditioning["pooled"].to(dtype),
            txt_ids=torch.zeros(embeddings.shape[1], 3, device=x_t.device),
            img_ids=grid_ids(height // PATCH, width // PATCH, x_t.device),
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def _latent_size(self) -> tuple[int, int]:
        return self.pipeline.transformer.config.in_channels // PATCH**2, self.pipeline.default_sample_size

    def _patch_size(self) -> int:
        return PATCH

    def _size(self) -> dict[str, str]:
        config = self.pipeline.transformer.config
        return {**super()._size(), "layers": f"{config.num_layers}+{config.num_single_layers}"}


def grid_ids(rows: int, columns: int, device: torch.device) -> Float[Tensor, "tokens 3"]:
    """Positions (0, row, column) of picture tokens in reading order, for the rotary embedding; text has (0, 0, 0)."""
    row = torch.arange(rows, dtype=torch.float32, device=device)
    column = torch.arange(columns, dtype=torch.float32, device=device)
    grid = torch.cartesian_prod(row, column)
    return torch.nn.functional.pad(grid, (1, 0))
