"""Batches of clean latents to learn from: single pictures with a weight, and pairs of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from align.batches import RowBatch
from diffusion.models.base import Conditioning


@dataclass(frozen=True, kw_only=True)
class LatentBatch(RowBatch):
    """Pictures. `index` keys times and noise.

    Attributes:
        latents: clean latents.
        conditioning: rows of prompts.
        prompt_rows: row of `conditioning` for each picture.
        weights: factor of each picture's loss; 0 leaves it out and still counts it.
    """

    noun: ClassVar[str] = "images"
    whole: ClassVar[tuple[str, ...]] = ("conditioning",)

    latents: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    weights: Float[Tensor, "n"]


@dataclass(frozen=True, kw_only=True)
class PairBatch(RowBatch):
    """Pairs of pictures of one prompt each. `index` keys the times and the noise that both pictures share.

    Attributes:
        chosen: clean latents of the better picture.
        rejected: clean latents of the worse one.
        conditioning: rows of prompts.
        prompt_rows: row of `conditioning` for each pair.
        weights: 1, or 0 for a place without a pair (all pictures of the prompt score the same, a row that cannot be
            read): it has loss 0 and is counted, so that an update has the same size whatever the scores are.
        share: of the places of the step, over all processes, that have a pair.
    """

    noun: ClassVar[str] = "images"
    whole: ClassVar[tuple[str, ...]] = ("conditioning", "share")

    chosen: Float[Tensor, "n c h w"]
    rejected: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    weights: Float[Tensor, "n"]
    share: float
