"""Stable Diffusion 3 and 3.5: every diffusers folder of class `StableDiffusion3Pipeline`, also the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.config import Sd3Model
from diffusion.models.base import Conditioning
from diffusion.models.flow_schedule import scheduler_sigmas, shifted_times
from diffusion.models.locate import T5_TOKENS, t5_tokens
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.targets import SD3

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

TRAIN_TIMESTEPS = 1000.0  # the network is fed 1000 t


class StableDiffusion3(DiffusionPipelineModel):
    """A frozen SD3-family pipeline around one trainable transformer.

    Args:
        pipeline: the loaded pipeline.
        max_sequence_length: length of the T5 part of the context. Where there is no T5 the pipeline appends that many
            zero vectors; 0 leaves the part out.
        source: where the pipeline came from, for messages.
        shift: of evenly spaced sampling times; None = the pipeline's own schedule.
    """

    pipeline_class = "StableDiffusion3Pipeline"
    targets = SD3

    def __init__(
        self,
        pipeline: StableDiffusion3Pipeline,
        max_sequence_length: int = T5_TOKENS,
        source: str = "",
        shift: float | None = None,
    ) -> None:
        self.max_sequence_length, self.shift = max_sequence_length, shift
        super().__init__(pipeline, source)

    @classmethod
    def _around(cls, pipeline: Any, config: Sd3Model) -> Self:
        return cls(pipeline, t5_tokens(config.path, config.max_sequence_length), config.path, config.shift)

    @classmethod
    def _left_out(cls, config: Sd3Model) -> dict[str, None]:
        if t5_tokens(config.path, config.max_sequence_length) == 0:
            return {"text_encoder_3": None, "tokenizer_3": None}  # the largest part of all would have nothing to do
        return {}

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The scheduler's own sigmas, from 1 down to 0, as a copy of its float32 numbers; or shifted by one's own.

        Raises:
            ModelError: the schedule does not begin at exactly 1, which the samplers rely on.
        """
        if self.shift is not None:
            return shifted_times(num_inference_steps, self.shift)
        _, height, width = self.latent_shape(resolution)
        tokens = height * width // self.pipeline.patch_size**2
        return scheduler_sigmas(self.pipeline.scheduler, num_inference_steps, tokens, source=self.source)

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Conditioning:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt,
            prompt_3=prompt,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        # Only the negative embeddings, left out here, may be None; diffusers annotates all four alike.
        return Conditioning({"embeddings": cast("Tensor", embeddings), "pooled": cast("Tensor", pooled)})

    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.pipeline.transformer.pos_embed.proj.weight.dtype  # of the base; adapters are always float32
        return network(
            hidden_states=x_t.to(dtype),
            timestep=t.to(torch.float32) * TRAIN_TIMESTEPS,
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            pooled_projections=conditioning["pooled"].to(dtype),
            return_dict=False,
        )[0]
