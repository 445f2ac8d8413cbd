"""What the loop asks of a method. One small class per paper implements it; no base class is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from align.types import BatchT, LossOutput


class Algorithm(Protocol[BatchT]):
    """A method, as the one loop sees it. It gets back the batches that it collects, whole or in pieces."""

    def collect(self, step: int) -> BatchT:
        """Roll out, score, shape and compare; or read the next pairs. Returns this process's rows."""
        ...

    def prepare_update(self, update: int, rows: BatchT) -> None:
        """Called before the micro-batches of update `update` (0, 1, ...) of this step; for old log-probabilities."""
        ...

    def loss(self, micro: BatchT) -> LossOutput:
        """Loss of a micro-batch, with gradient."""
        ...

    def after_step(self, step: int) -> Mapping[str, float]:
        """Called once after the last update of a step (lagged policy ...). Returns metrics."""
        ...

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """Everything that the next step depends on and that is not a trained weight. Flat; tensors and JSON scalars."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Inverse of `state_dict`."""
        ...
