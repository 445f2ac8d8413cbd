"""Rows of a file -> what the adapter learns from: vectors of prompts, targets, which objectives a row speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.adapter.config import TargetConfig
from align.adapter.rows import PreferredRows
from align.engine.random import generator
from align.shaping.adapter import pro_targets
from align.shaping.normaliser import Normaliser

if TYPE_CHECKING:
    from align.types import RewardTable, Samples, Signal


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Prompts as the adapter sees them; implements `align.types.Batch`.

    Attributes:
        vectors: of the prompts, float32.
        targets: wanted weights, rows sum to 1.
        available: objectives that a row speaks of.
    """

    vectors: Float[Tensor, "n d"]
    targets: Float[Tensor, "n k"]
    available: Bool[Tensor, "n k"]
    noun: str = "prompts"

    @property
    def samples(self) -> Samples | None:
        """None: nothing is drawn."""
        return None

    @property
    def rewards(self) -> RewardTable | None:
        """None: what was scored is in the file."""
        return None

    @property
    def signal(self) -> Signal | None:
        """None."""
        return None

    def __len__(self) -> int:
        return len(self.vectors)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        return type(self)(
            vectors=self.vectors[rows], targets=self.targets[rows], available=self.available[rows], noun=self.noun
        )

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return type(self)(
            vectors=self.vectors.to(device),
            targets=self.targets.to(device),
            available=self.available.to(device),
            noun=self.noun,
        )


def split(rows: PreferredRows, share: float, seed: int) -> tuple[PreferredRows, PreferredRows]:
    """Rows to learn from and rows to judge by; all rows of a prompt are on one side.

    Args:
        rows: all.
        share: of the distinct prompts, for the second; one prompt at least where there are two and it is above 0.
        seed: decides which.
    """
    distinct = list(dict.fromkeys(rows.prompts))
    count = 0 if share == 0 else min(max(round(share * len(distinct)), 1), len(distinct) - 1)
    order = torch.randperm(len(distinct), generator=generator(seed, "adapter_heldout")).tolist()
    aside = {distinct[number] for number in order[:count]}
    first = [number for number, prompt in enumerate(rows.prompts) if prompt not in aside]
    second = [number for number, prompt in enumerate(rows.prompts) if prompt in aside]
    return rows.select(first), rows.select(second)


def fitted_normaliser(rows: PreferredRows, target: TargetConfig) -> Normaliser:
    """Fitted to the training rows; to both responses where both are compared."""
    parts = [rows.preferred, *([rows.rejected] if target.contrastive and rows.rejected is not None else [])]
    return Normaliser.fitted(torch.cat([_table(part) for part in parts]), target.normaliser)


def targets_of(
    rows: PreferredRows, target: TargetConfig, normaliser: Normaliser
) -> tuple[Float[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """The wanted weights of each row, and which objectives it speaks of."""
    preferred, rejected = normaliser(_table(rows.preferred)), None
    available = ~preferred.isnan()
    if target.contrastive and rows.rejected is not None:
        rejected = normaliser(_table(rows.rejected))
        available &= ~rejected.isnan()
    found = pro_targets(preferred, target.temperature, rejected=rejected, entropy_floor=target.entropy_floor)
    return found, available


def _table(rewards: tuple[tuple[float, ...], ...]) -> Float[Tensor, "n k"]:
    return torch.tensor(rewards, dtype=torch.float64)
