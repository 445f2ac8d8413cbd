"""How a process cuts its rows into optimiser updates and micro-batches. Pure arithmetic on row numbers."""

from __future__ import annotations

from collections.abc import Sequence

from align.types import Batch, BatchT


def even_cuts(rows: int, parts: int) -> list[range]:
    """Consecutive runs of rows, as equal as possible: part u is [u * rows // parts, (u + 1) * rows // parts)."""
    return [range(part * rows // parts, (part + 1) * rows // parts) for part in range(parts)]


def micro_cuts(rows: int, size: int) -> list[range]:
    """Consecutive runs of `size` rows; the last one may be shorter."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def unit_count(batch: Batch) -> int:
    """How many units (samples, tokens) the loss of a batch is a mean over: its rows, unless it has `unit_count()`."""
    counter = getattr(batch, "unit_count", None)
    return int(counter()) if counter is not None else len(batch)


def passes_of(micro: BatchT) -> Sequence[BatchT]:
    """The pieces of a micro-batch that each get a forward and a backward pass: one, unless it has `passes()`.

    A method that learns from every step of a denoising chain cuts its rows by step: the activations of one step are
    held at a time. `unit_count()` then counts rows times steps.
    """
    cutter = getattr(micro, "passes", None)
    return [micro] if cutter is None else list(cutter())
