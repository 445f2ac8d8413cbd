"""Which rows of a data set a step reads, and which process takes which of them.

Everything is a pure function of (seed, step): there is no iterator, so nothing can be prefetched with a stale epoch,
and a resumed run needs the step number only.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Int
from torch import Tensor

from align.engine.batching import even_cuts
from align.engine.random import generator
from align.errors import AlignError


def epoch_rows(rows: int, per_step: int, seed: int, step: int, stream: str) -> Int[Tensor, "per_step"]:
    """Distinct rows of a step: its window of the concatenated shuffled epochs.

    Every row is used once before any is used again, also where a step spans two epochs (the new epoch then starts with
    rows that the step does not hold yet).

    Args:
        rows: rows of the data set, at least `per_step`.
        per_step: distinct rows of a step, over all processes.
        seed: of the run.
        step: number of the step, from 0.
        stream: name of the draw; two data sets of a run are shuffled apart.

    Raises:
        ValueError: a count below one, a negative step, or more rows in a step than there are.
    """
    if per_step < 1 or step < 0 or rows < per_step:
        raise ValueError(f"expected 1 <= per_step <= rows and step >= 0; found {per_step}, {rows} and {step}")
    epoch, start = divmod(step * per_step, rows)
    window = _epoch_order(rows, per_step, seed, epoch, stream)[start : start + per_step]
    if len(window) == per_step:
        return window
    return torch.cat([window, _epoch_order(rows, per_step, seed, epoch + 1, stream)[: per_step - len(window)]])


def process_rows(rows: int, updates: int, rank: int, world: int) -> Int[Tensor, "local"]:
    """Global row numbers of one process, in the order in which it uses them.

    The rows are cut into `updates` contiguous chunks and each chunk into `world` contiguous slices: update u of this
    process takes the u-th of `updates` equal parts of the result. Slices differ by at most one row where the processes
    do not divide a chunk.

    Args:
        rows: samples of the step over all processes.
        updates: optimiser updates that share the step.
        rank: number of this process, from 0.
        world: number of processes.

    Raises:
        AlignError: the updates do not divide the samples, or a process would have none.
    """
    if rows % updates:
        near = [u for u in range(1, rows + 1) if rows % u == 0]
        raise AlignError(
            f"{rows} samples a step cannot be cut into {updates} equal updates (training.updates_per_rollout).",
            f"Nearest possible: {min(near, key=lambda u: abs(u - updates))}.",
        )
    chunk = rows // updates
    if chunk < world:
        raise AlignError(
            f"an update has {chunk} samples for {world} processes: some would have none.",
            f"Use at most {chunk} processes, or more prompts or samples a step, or fewer updates.",
        )
    own = even_cuts(chunk, world)[rank]
    return (torch.arange(updates)[:, None] * chunk + torch.arange(own.start, own.stop)).flatten()


def _epoch_order(rows: int, per_step: int, seed: int, epoch: int, stream: str) -> Int[Tensor, "rows"]:
    """Order of an epoch: its own shuffle, with the rows that a step spanning two epochs holds already moved out of
    that step.

    An epoch's order thus depends on the end of the one before. That chain is short: it starts afresh where an epoch
    and a step begin together, and with 2 steps or more in an epoch the end is not touched by what was moved at the
    start.
    """
    period = per_step // math.gcd(rows, per_step)  # every so many epochs, an epoch and a step begin together
    first = epoch - epoch % period
    if rows >= 2 * per_step:
        first = max(first, epoch - 1)
    order = _shuffle(rows, seed, first, stream)
    for number in range(first + 1, epoch + 1):
        held = number * rows % per_step  # rows that the spanning step takes from the epoch before
        order = _moved_back(_shuffle(rows, seed, number, stream), order[rows - held :], per_step - held)
    return order


def _shuffle(rows: int, seed: int, epoch: int, stream: str) -> Int[Tensor, "rows"]:
    return torch.randperm(rows, generator=generator(seed, stream, epoch))


def _moved_back(order: Int[Tensor, "p"], held: Int[Tensor, "h"], places: int) -> Int[Tensor, "p"]:
    """`order` with its first `places` entries free of `held`; everything else keeps its order."""
    free = ~torch.isin(order, held)
    early = free & (free.cumsum(0) <= places)
    return torch.cat([order[early], order[~early]])
