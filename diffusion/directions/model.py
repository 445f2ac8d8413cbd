"""A model whose prompts can ask for a direction: `Conditioning` has a further tensor, and everything else stays.

    m = m(null) + s (m(v) - m(null))                s = guidance over the direction; 1 = none, and no second pass

It stands around a model of any family and passes the rest on, so that samplers, methods and evaluation know nothing of
directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.directions.embedding import DirectionEmbedding
from diffusion.directions.policy import bare
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.paths import Path as NoisePath

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.adapters import Policy

DIRECTION = "direction"
"""Tensor of a `Conditioning`: the direction of each row, zeros for none."""


@dataclass(frozen=True, kw_only=True)
class SteeredModel:
    """Implements `diffusion.models.base.DiffusionModel`.

    Attributes:
        model: of any family; its network has the embedding as a child.
        embedding: e(v).
        guidance: s.
    """

    model: DiffusionModel
    embedding: DirectionEmbedding
    guidance: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where the pipeline lives."""
        return self.model.device

    @property
    def network(self) -> nn.Module:
        """The denoiser, with the embedding in it."""
        return self.model.network

    @property
    def path(self) -> NoisePath:
        """Of the model."""
        return self.model.path

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, without a direction; `told_to` gives them one."""
        return self.model.encode(prompts)

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
        """As the model's; guidance over the prompt keeps the direction in both of its passes."""
        tensors = dict(conditioning.tensors)
        none = torch.zeros(len(conditioning), self.embedding.objectives, device=x_t.device)
        directions = tensors.pop(DIRECTION, none)

        def output(asked: Tensor) -> Tensor:
            with self.embedding.asked(asked):
                return self.model.predict(
                    network,
                    x_t,
                    t,
                    Conditioning(tensors),
                    guidance_scale,
                    detach_unconditional=detach_unconditional,
                )

        if self.guidance == 1.0:
            return output(directions)
        without = output(none)
        return without + self.guidance * (output(directions) - without)

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """Of the model."""
        return self.model.times(num_inference_steps, resolution)

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        """Of the model."""
        return self.model.latent_shape(resolution)

    def decode(self, latents: Float[Tensor, "n c h w"]) -> list[Image]:
        """Of the model."""
        return self.model.decode(latents)

    def encode_images(self, images: Sequence[Image]) -> Float[Tensor, "n c h w"]:
        """Of the model."""
        return self.model.encode_images(images)

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Of the model."""
        return self.model.lora_targets(names)

    def save(self, folder: Path, policy: Policy) -> Path:
        """Of the model: the network's own weights; the embedding is a file of `diffusion.directions.files`."""
        with bare(policy):
            return self.model.save(folder, policy)

    def fingerprint(self) -> dict[str, str]:
        """Of the model."""
        return self.model.fingerprint()


def told_to(conditioning: Conditioning, directions: Float[Tensor, "p k"]) -> Conditioning:
    """Rows of prompts that ask for a direction each; zeros for none."""
    device = next(iter(conditioning.tensors.values())).device
    return Conditioning({**conditioning.tensors, DIRECTION: directions.to(device, torch.float32)})
