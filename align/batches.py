"""Batches whose fields have one entry for each row, as the loop cuts them into updates and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Int
from torch import Tensor

from align.types import RewardTable, Samples, Signal


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """Rows to learn from; implements `align.types.Batch`.

    What a subclass adds has one entry for each row, as a tensor on any device or as a list, or is None; or it is named
    in `whole`. `samples`, `rewards` and `signal` are for the record: the whole rollout of this process, whatever rows
    are selected; None where there was no rollout.

    Attributes:
        noun: what a row is, in the name of the speed in the log.
        whole: fields that every selection has whole.
        index: number of each row in the step, over all processes.
    """

    noun: ClassVar[str] = "rows"
    whole: ClassVar[tuple[str, ...]] = ()

    index: Int[Tensor, "n"]
    samples: Samples | None = None
    rewards: RewardTable | None = None
    signal: Signal | None = None

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        kept = (*_RECORDED, *self.whole)
        names = [item.name for item in fields(self) if item.name not in kept]
        return replace(self, **{name: _picked(getattr(self, name), rows) for name in names})


_RECORDED = ("samples", "rewards", "signal")


def _picked(values: Any, rows: Int[Tensor, "m"]) -> Any:  # Any: a tensor, a sequence of tensors, or None
    if values is None:
        return None
    if isinstance(values, Tensor):
        return values[rows.to(values.device)]
    return [values[place] for place in rows.tolist()]
