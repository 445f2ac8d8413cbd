"""Qwen-Image: every diffusers folder of class `QwenImagePipeline`.

A prompt is the states of a vision-language model, as many as it has tokens; here they are padded to one length with a
mask. The network attends to no padding and counts text positions from the left: padding changes nothing but the cost.
The autoencoder is made for films: a picture is its first frame, and latents are scaled channel by channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.base import Conditioning
from diffusion.models.flow_schedule import scheduler_sigmas, shifted_times, uniform_sigmas
from diffusion.models.packing import PATCH, pack, unpack
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.models.targets import QWEN_IMAGE

if TYPE_CHECKING:
    from diffusers import QwenImagePipeline

    from diffusion.config.models import QwenImageModel

QWEN_TOKENS = 512
WITHOUT_PROMPT = " "
"""What guidance compares with: one space, as the model's makers do. The pipeline's own call guides only where it is
given a negative prompt."""


class QwenImage(DiffusionPipelineModel):
    """A frozen Qwen-Image pipeline around one trainable transformer.

    Args:
        pipeline: the loaded pipeline.
        max_sequence_length: tokens of a prompt, the padding and the end of the chat template included.
        source: where the pipeline came from, for messages.
        shift: of evenly spaced sampling times; None = the pipeline's own schedule.
    """

    pipeline_class = "QwenImagePipeline"
    targets = QWEN_IMAGE

    def __init__(
        self,
        pipeline: QwenImagePipeline,
        max_sequence_length: int = QWEN_TOKENS,
        source: str = "",
        shift: float | None = None,
    ) -> None:
        self.max_sequence_length, self.shift = max_sequence_length, shift
        super().__init__(pipeline, source)

    @classmethod
    def _around(cls, pipeline: Any, config: QwenImageModel) -> Self:
        return cls(pipeline, config.max_sequence_length, config.path, config.shift)

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """The layers of a named set, or the given endings themselves.

        Of the last block, layers that only the prompt's tokens go through are left out: nothing reads these tokens any
        more. An adapter there would get no gradient, which stops distributed training.
        """
        if not isinstance(names, str):
            return tuple(names)
        linear = [name for name, module in self.network.named_modules() if isinstance(module, nn.Linear)]
        unread = unread_layers(self.pipeline.transformer.config.num_layers)
        return tuple(name for name in linear if self.targets.adapts(names, f"{name}.weight") and name not in unread)

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The scheduler's sigmas from evenly spaced ones, 1 .. 1/n, and 0, shifted by the picture's size.

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
        embeddings, _ = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self.max_sequence_length
        )
        tokens = embeddings.shape[1]  # of one prompt: none of them is padding
        missing = self.max_sequence_length - tokens
        mask = torch.arange(self.max_sequence_length, device=self.device) < tokens
        padded = nn.functional.pad(embeddings, (0, 0, 0, missing))
        return Conditioning({"embeddings": padded, "mask": mask[None]})

    def _unconditional(self, like: Conditioning) -> Conditioning:
        return self.encode([WITHOUT_PROMPT] * len(like))

    def _guided(self, without: Tensor, with_prompt: Tensor, guidance_scale: float) -> Tensor:
        """Guidance that keeps each token's length, see `guided_at_equal_length`."""
        height, width = with_prompt.shape[-2:]
        return unpack(guided_at_equal_length(pack(without), pack(with_prompt), guidance_scale), height, width)

    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.pipeline.transformer.img_in.weight.dtype  # of the base; adapters are always float32
        height, width = x_t.shape[-2:]
        tokens = network(
            hidden_states=pack(x_t.to(dtype)),
            timestep=t.to(torch.float32),  # the network multiplies by 1000 itself
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            encoder_hidden_states_mask=conditioning["mask"],
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * len(x_t),
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def _latent_size(self) -> tuple[int, int]:
        return self.pipeline.transformer.config.in_channels // PATCH**2, self.pipeline.default_sample_size

    def _patch_size(self) -> int:
        return PATCH

    @cached_property
    def _latent_statistics(self) -> Float[Tensor, "2 c 1 1"]:
        """Mean and deviation of the autoencoder's latents, channel by channel."""
        config = self.pipeline.vae.config
        return torch.tensor([config.latents_mean, config.latents_std], device=self.device)[..., None, None]

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, deviation = self._latent_statistics
        return latents * deviation + mean

    def _scaled(self, latents: Tensor) -> Tensor:
        mean, deviation = self._latent_statistics
        return (latents - mean) / deviation

    def _decode_latents(self, latents: Tensor) -> Tensor:
        film = self.pipeline.vae.decode(latents.unsqueeze(2), return_dict=False)[0]
        return film[:, :, 0]

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        return super()._encode_pixels(pixels.unsqueeze(2))[:, :, 0]


def unread_layers(num_layers: int) -> tuple[str, ...]:
    """Layers of the last block through which nothing reaches the picture."""
    block = f"transformer_blocks.{num_layers - 1}"
    return tuple(f"{block}.{name}" for name in ("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2"))


def guided_at_equal_length(
    without: Float[Tensor, "n tokens features"], with_prompt: Float[Tensor, "n tokens features"], guidance_scale: float
) -> Float[Tensor, "n tokens features"]:
    """Classifier-free guidance, scaled back token by token to the length of the output with the prompt.

        m = m_uncond + g (m_cond - m_uncond),    m <- m |m_cond| / |m|

    Args:
        without: m_uncond, the network's output without the prompt.
        with_prompt: m_cond.
        guidance_scale: g.
    """
    guided = without + guidance_scale * (with_prompt - without)
    length = torch.linalg.vector_norm(guided, dim=-1, keepdim=True).clamp_min(torch.finfo(guided.dtype).tiny)
    return guided * (torch.linalg.vector_norm(with_prompt, dim=-1, keepdim=True) / length)
