"""Sana and Sana 1.5: every diffusers folder of class `SanaPipeline`. Linear attention; an autoencoder of factor 32.

A prompt is the states of a language model with a mask. The pipeline's own call puts a long instruction in front of
every prompt (but not of the empty one that guidance compares with), and so do we.

The scheduler of the released folders is a DPM-Solver on flow times. Its times are taken, its steps are not: rollouts
and evaluations step by our own samplers, and Euler's steps draw what the pipeline draws with diffusers'
`FlowMatchEulerDiscreteScheduler`.
"""

from __future__ import annotations

import copy
import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.base import Conditioning
from diffusion.models.flow_schedule import scheduler_sigmas
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.targets import SANA

if TYPE_CHECKING:
    from diffusers import SanaPipeline

    from diffusion.config.models import SanaModel

TRAIN_TIMESTEPS = 1000.0  # the network is fed 1000 t, times its own scale
GEMMA_TOKENS = 300


class Sana(DiffusionPipelineModel):
    """A frozen Sana pipeline around one trainable transformer.

    Args:
        pipeline: the loaded pipeline.
        max_sequence_length: tokens of a prompt, padding included; the padding is masked.
        instruction: whether the pipeline's own instruction stands in front of every prompt.
        source: where the pipeline came from, for messages.
    """

    pipeline_class = "SanaPipeline"
    targets = SANA

    def __init__(
        self,
        pipeline: SanaPipeline,
        max_sequence_length: int = GEMMA_TOKENS,
        instruction: bool = True,
        source: str = "",
    ) -> None:
        self.max_sequence_length = max_sequence_length
        self.instruction = own_instruction(pipeline) if instruction else None
        super().__init__(pipeline, source)

    @classmethod
    def _around(cls, pipeline: Any, config: SanaModel) -> Self:
        return cls(pipeline, config.max_sequence_length, config.instruction, config.path)

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The scheduler's sigmas, the first moved to 1: DPM-Solver begins at discrete time 999 of 1000, shifted.

        Raises:
            ModelError: a scheduler that is none of flow matching.
        """
        scheduler = self.pipeline.scheduler
        if not scheduler.config.get("use_flow_sigmas", False):
            _, height, width = self.latent_shape(resolution)
            tokens = height * width // self._patch_size() ** 2
            return scheduler_sigmas(scheduler, num_inference_steps, tokens, source=self.source)
        scheduler = copy.deepcopy(scheduler)
        scheduler.set_timesteps(num_inference_steps)
        times = scheduler.sigmas.detach().clone().to("cpu", torch.float32)
        times[0] = 1.0
        return times

    def _encode_one(self, prompt: str) -> Conditioning:
        return self._encode_text(prompt, self.instruction)

    @torch.no_grad()
    def _encode_text(self, text: str, instruction: list[str] | None) -> Conditioning:
        embeddings, mask, _, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=instruction,
        )
        return Conditioning({"embeddings": embeddings, "mask": mask})

    @cached_property
    def _without_prompt(self) -> Conditioning:
        with self._working(*self._text_encoders()):
            return self._encode_text("", None)

    def _unconditional(self, like: Conditioning) -> Conditioning:
        """The empty prompt, without the instruction."""
        rows = {name: row.expand(len(like), *row.shape[1:]) for name, row in self._without_prompt.tensors.items()}
        return Conditioning(rows)

    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        base = self.pipeline.transformer
        dtype = base.patch_embed.proj.weight.dtype  # of the base; adapters are always float32
        output = network(
            x_t.to(dtype),
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            timestep=t.to(torch.float32) * (TRAIN_TIMESTEPS * base.config.timestep_scale),
            encoder_attention_mask=conditioning["mask"],
            return_dict=False,
        )[0]
        return output[:, : x_t.shape[1]]  # a network that also predicts a variance puts it behind

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        return self.pipeline.vae.encode(pixels).latent  # deterministic: no distribution to take the mode of


def own_instruction(pipeline: SanaPipeline) -> list[str]:
    """The instruction that the pipeline's own call puts in front of every prompt, by default."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    return cast("list[str]", parameters["complex_human_instruction"].default)
