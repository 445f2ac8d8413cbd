"""Pictures for given prompts and seeds. A picture depends on the weights, its prompt and its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.rollout import SamplerSettings, sample_latents

if TYPE_CHECKING:
    from PIL.Image import Image


def draw(
    model: DiffusionModel,
    network: nn.Module,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplerSettings,
    encode: Callable[[DiffusionModel, Sequence[str]], Conditioning] | None = None,
) -> list[Image]:
    """One picture for each prompt with each seed: all seeds of the first prompt, then of the second, ...

    Args:
        model: the model family.
        network: its denoiser, with the weights to draw with.
        prompts: texts.
        seeds: each keys the initial noise; equal seeds start every prompt from the same noise.
        settings: how latents are drawn, and how many at once.
        encode: what the network is told of prompts; None = the prompts.
    """
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    texts = [prompt for prompt, _ in pairs]
    conditioning = model.encode(texts) if encode is None else encode(model, texts)
    index = torch.tensor([seed for _, seed in pairs])
    images: list[Image] = []
    for rows in torch.arange(len(pairs)).split(settings.batch_size):
        latents = sample_latents(model, network, conditioning.select(rows), index[rows], settings, "generate")
        images += model.decode(latents)
    return images
