"""Latents as tokens of 2 x 2 squares: by hand, as diffusers packs them, and back."""

import torch
from diffusers import FluxPipeline

from align.engine.random import keyed_normal
from diffusion.models.packing import pack, unpack


def test_by_hand():
    """Two channels of 2 x 4: the left square is 0 1 / 4 5 in channel 0 and 8 9 / 12 13 in channel 1."""
    tokens = pack(torch.arange(16).reshape(1, 2, 2, 4))
    assert tokens.tolist() == [[[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]]


def test_as_the_pipeline_packs_and_back():
    latents = keyed_normal((4, 6, 8), torch.arange(3), "pack")
    tokens = pack(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 3, 4, 6, 8))
    assert torch.equal(unpack(tokens, 6, 8), latents)
