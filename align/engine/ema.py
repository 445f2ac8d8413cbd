"""Moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from align.config.shared import EmaConfig


def effective_decay(update: int, largest: float) -> float:
    """Decay of the average at optimiser update `update` = 0, 1, ...: min((1 + s) / (10 + s), largest).

    A young average forgets its start quickly: the first decays are 0.1, 0.18, 0.25.
    """
    return min((1 + update) / (10 + update), largest)


class Ema:
    """Average of weights over optimiser updates: average += (1 - decay) * (weight - average).

    Args:
        weights: the trained weights by name; the average starts as their copy.
        config: largest decay and interval.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: EmaConfig) -> None:
        self.config = config
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], update: int) -> None:
        """Take in the weights after optimiser update number `update` (from 0), if it is this update's turn."""
        if (update + 1) % self.config.every:
            return
        share = 1 - effective_decay(update, self.config.decay)
        for name, average in self.weights.items():
            average.lerp_(weights[name].detach(), share)

    @torch.no_grad()
    def restart(self, weights: Mapping[str, Tensor]) -> None:
        """Begin again from these weights."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        self.restart(state)
