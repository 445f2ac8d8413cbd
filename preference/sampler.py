"""Which pairs a step reads, and which of them are this process's: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from align.engine.batching import even_cuts
from align.engine.epochs import epoch_rows, process_rows
from align.errors import AlignError

STREAM = "pair_order"
"""Name of the shuffle."""


@dataclass(frozen=True, kw_only=True)
class StepPairs:
    """The pairs of a step.

    Attributes:
        rows: places in the data of all pairs of the step, over all processes.
        index: which of them this process takes, in the order in which it uses them.
        updates: optimiser updates that share the step.
    """

    rows: Int[Tensor, "p"]
    index: Int[Tensor, "n"]
    updates: int

    @property
    def own(self) -> Int[Tensor, "n"]:
        """Places in the data of this process's pairs."""
        return self.rows[self.index]

    def of_update(self, update: int) -> Int[Tensor, "u"]:
        """Places in the data of all pairs of an update, over all processes."""
        cut = even_cuts(len(self.rows), self.updates)[update]
        return self.rows[cut.start : cut.stop]


@dataclass(frozen=True, kw_only=True)
class PairSampler:
    """Shuffled epochs over stored pairs: each is read once before any is read again.

    Attributes:
        pairs: pairs in the data.
        per_step: distinct pairs of a step, over all processes.
        updates: optimiser updates of a step.
        seed: of the run.
        rank: number of this process.
        world: number of processes.

    Raises:
        AlignError: there are fewer pairs than a step reads.
    """

    pairs: int
    per_step: int
    seed: int
    updates: int = 1
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.pairs < self.per_step:
            raise AlignError(
                f"a step reads {self.per_step} different pairs, and the data has {self.pairs} that can be used.",
                f"Set data.pairs_per_step to at most {self.pairs}, or add pairs.",
            )

    def __call__(self, step: int) -> StepPairs:
        """The pairs of a step, numbered from 1."""
        rows = epoch_rows(self.pairs, self.per_step, self.seed, step - 1, STREAM)
        return StepPairs(
            rows=rows, index=process_rows(self.per_step, self.updates, self.rank, self.world), updates=self.updates
        )

    def read_in(self, steps: Iterable[int]) -> Int[Tensor, "r"]:
        """Places in the data that any of these steps reads, ascending."""
        numbers = list(steps)
        if len(numbers) * self.per_step >= self.pairs and numbers == list(range(1, len(numbers) + 1)):
            return torch.arange(self.pairs)  # a whole epoch
        return torch.cat([self(step).rows for step in numbers]).unique()
