"""One optimiser update from many micro-batches on many processes, exactly as from one large batch.

With C units (samples, tokens) in the whole update, c_m of them in micro-batch m with mean loss l_m,

    gradient = sum_m c_m grad(l_m) / C

whatever the sizes. Data parallelism averages gradients over W processes, so each process adds grad(l_m * c_m * W / C).

Under FSDP2 every pass is a collective, so all processes take equally many: as many as the one with the most rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from align.engine.batching import even_cuts, micro_cuts, passes_of, unit_count
from align.engine.distributed import Processes
from align.engine.fsdp import is_spread
from align.errors import AlignError
from align.types import Batch, BatchT, LossOutput

if TYPE_CHECKING:
    from accelerate import Accelerator


class MeanMetrics:
    """Sums of metrics over micro-batches. Tensors stay on their device until `sums` fetches them together."""

    def __init__(self) -> None:
        self._numbers: list[tuple[str, float, float]] = []
        self._tensors: dict[torch.device, list[tuple[str, Tensor, float]]] = {}

    def add(self, metrics: Mapping[str, float | Tensor], count: float) -> None:
        """Take in means over `count` units."""
        for name, value in metrics.items():
            if isinstance(value, Tensor):
                self._tensors.setdefault(value.device, []).append((name, value.detach().reshape(()), count))
            else:
                self._numbers.append((name, float(value), count))

    def sums(self) -> dict[str, tuple[float, float]]:
        """(sum, count) of each name; clears the collection."""
        rows = list(self._numbers)
        for entries in self._tensors.values():
            fetched = torch.stack([value for _, value, _ in entries]).tolist()
            rows += [(name, value, count) for (name, _, count), value in zip(entries, fetched, strict=True)]
        totals: dict[str, tuple[float, float]] = {}
        for name, value, count in rows:
            total, number = totals.get(name, (0.0, 0.0))
            totals[name] = (total + value * count, number + count)
        self._numbers, self._tensors = [], {}
        return totals


class Accumulator:
    """Weighs the micro-batches of an update.

    Args:
        accelerator: does the backward pass (loss scaling, synchronisation).
        network: the trained module, wrapped.
        processes: all processes.
        micro_batch_size: rows of one pass.
    """

    def __init__(
        self, accelerator: Accelerator, network: nn.Module, processes: Processes, *, micro_batch_size: int
    ) -> None:
        self.metrics = MeanMetrics()
        self._accelerator = accelerator
        self._network = network
        self._processes = processes
        self._size = micro_batch_size
        self._units = self._counted = self._global_units = self._most_rows = 0
        self._in_step = is_spread(network)
        self._filler = False

    def begin(self, rows: Batch) -> None:
        """Announce the rows of an update on this process; a collective.

        Raises:
            AlignError: a process has no rows.
        """
        counts = self._processes.gather_objects((len(rows), unit_count(rows)))
        empty = [rank for rank, (number, units) in enumerate(counts) if number == 0 or units == 0]
        if empty:
            raise AlignError(
                f"processes {empty} have no samples for this optimiser update.",
                "Raise the number of samples per step, or use fewer processes or fewer training.updates_per_rollout.",
            )
        self._units = counts[self._processes.rank][1]
        self._global_units = sum(units for _, units in counts)
        self._most_rows = max(number for number, _ in counts)
        self._counted = 0

    def micro_batches(self, rows: BatchT) -> Iterator[BatchT]:
        """Cut the rows, and each cut into its passes; gradients travel between processes with the last piece only."""
        cuts = self._cuts(len(rows))
        for cut in cuts:
            self._filler = len(cut) == 0
            chosen = torch.zeros(1, dtype=torch.int64) if self._filler else torch.arange(cut.start, cut.stop)
            pieces = passes_of(rows.select(chosen))
            for piece in pieces:
                last = cut is cuts[-1] and piece is pieces[-1]
                with nullcontext() if last else self._gradients_stay():
                    yield piece
        self._filler = False

    def _cuts(self, rows: int) -> list[range]:
        """Micro-batches; in step with the other processes some are smaller than they could be, or empty."""
        return even_cuts(rows, -(-self._most_rows // self._size)) if self._in_step else micro_cuts(rows, self._size)

    def _gradients_stay(self) -> AbstractContextManager[None]:
        """Under FSDP2 gradients are summed over processes at once: a whole gradient would be held otherwise."""
        return nullcontext() if self._in_step else self._accelerator.no_sync(self._network)

    def backward(self, out: LossOutput) -> None:
        """Add the gradient of one micro-batch."""
        if self._filler:
            self._accelerator.backward(out.loss * 0.0)
            return
        weight = out.count * self._processes.world / self._global_units
        self._accelerator.backward(out.loss * weight)
        self._counted += out.count
        self.metrics.add({"loss": out.loss, **out.metrics}, out.count)

    def finish(self) -> None:
        """Check that the losses covered what was announced; otherwise the update would have the wrong size.

        Raises:
            ValueError: the algorithm's LossOutput.count does not fit its batch.
        """
        if self._counted != self._units:
            raise ValueError(
                f"the losses of this update are means over {self._counted} units, its batch announced {self._units}. "
                "LossOutput.count must sum to len(batch), or to batch.unit_count() where the batch has it."
            )
