"""Batches of clean latents to learn from: single pictures with a weight, and pairs of pictures.

Both implement `align.types.Batch`. `samples`, `rewards` and `signal` are for the record: the whole rollout of this
process, whatever rows are selected; None where there was no rollout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.types import RewardTable, Samples, Signal
from diffusion.models.base import Conditioning


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Pictures.

    Attributes:
        index: number of each row over all processes; it keys times and noise.
        latents: clean latents.
        conditioning: rows of prompts.
        prompt_rows: row of `conditioning` for each picture.
        weights: factor of each picture's loss; 0 leaves it out and still counts it.
    """

    index: Int[Tensor, "n"]
    latents: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    weights: Float[Tensor, "n"]
    samples: Samples | None = None
    rewards: RewardTable | None = None
    signal: Signal | None = None

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return replace(
            self,
            index=self.index[rows],
            latents=self.latents[rows.to(self.latents.device)],
            prompt_rows=self.prompt_rows[rows],
            weights=self.weights[rows],
        )


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Pairs of pictures of one prompt each.

    Attributes:
        index: number of each pair over all processes; it keys the times and the noise that both pictures share.
        chosen: clean latents of the better picture.
        rejected: clean latents of the worse one.
        conditioning: rows of prompts.
        prompt_rows: row of `conditioning` for each pair.
        weights: 1, or 0 for a place without a pair (all pictures of the prompt score the same, a row that cannot be
            read): it has loss 0 and is counted, so that an update has the same size whatever the scores are.
        share: of the places of the step, over all processes, that have a pair.
    """

    index: Int[Tensor, "n"]
    chosen: Float[Tensor, "n c h w"]
    rejected: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    weights: Float[Tensor, "n"]
    share: float
    samples: Samples | None = None
    rewards: RewardTable | None = None
    signal: Signal | None = None

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        device_rows = rows.to(self.chosen.device)
        return replace(
            self,
            index=self.index[rows],
            chosen=self.chosen[device_rows],
            rejected=self.rejected[device_rows],
            prompt_rows=self.prompt_rows[rows],
            weights=self.weights[rows],
        )
