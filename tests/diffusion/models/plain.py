"""The smallest models there are: four numbers make a picture of four grey tiles, and a few linear layers predict.

They implement as much of `diffusion.models.base.DiffusionModel` as a method needs. With so few elements a policy
gradient shows its direction within a handful of steps, which the miniatures of real families do not on a U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from align.engine.random import keyed_normal
from diffusion.models.base import Conditioning
from diffusion.paths import DdpmPath, FlowPath, Path

SHAPE = (1, 2, 2)
ABARS = torch.linspace(0.999, 0.01, 50, dtype=torch.float64)


class Layers(nn.Module):
    """(latents, time) -> output like the latents; weights are keyed, so that every test starts alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 4)
        with torch.no_grad():
            for number, weight in enumerate(self.parameters()):
                weight.copy_(0.4 * keyed_normal(tuple(weight.shape), torch.tensor([number]), "plain")[0])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """A correction of the latents themselves, which is what noise and velocity of a blank picture are."""
        hidden = torch.tanh(self.first(torch.cat([x.flatten(1), t[:, None]], dim=1)))
        return x + 0.5 * self.last(hidden).view_as(x)


class Plain:
    """A model on either path; prompts change nothing."""

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self.path, self.network = path, Layers()

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning({"nothing": torch.zeros(len(prompts), 1)})

    def predict(self, network, x_t, t, conditioning, guidance_scale=1.0, *, detach_unconditional=False) -> Tensor:
        return network(x_t.float(), t.float())

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Tensor:
        """Flow: evenly from 1 to 0; diffusion: evenly over the discrete times, from the last to the first."""
        even = torch.linspace(1, 0, num_inference_steps + 1)
        if isinstance(self.path, FlowPath):
            return even
        return (even * (len(ABARS) - 1)).round() / len(ABARS)

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        return SHAPE

    def decode(self, latents: Tensor) -> list[Image.Image]:
        tiles = (latents[:, 0].sigmoid() * 255).round().numpy().astype(np.uint8)
        return [Image.fromarray(tile).convert("RGB") for tile in tiles]

    def fingerprint(self) -> dict[str, str]:
        return {"pipeline": "plain"}


def plain_flow() -> Plain:
    return Plain(FlowPath())


def plain_noise() -> Plain:
    return Plain(DdpmPath(ABARS, "epsilon"))


def plain_v() -> Plain:
    return Plain(DdpmPath(ABARS, "v_prediction"))
