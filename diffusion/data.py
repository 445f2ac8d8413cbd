"""Which prompts a step trains on, how its samples are grouped, and which process makes which sample.

Everything is a pure function of (seed, step): there is no iterator, so nothing can be prefetched with a stale
epoch, and a resumed run needs the step number only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from align.engine.random import generator
from align.errors import AlignError
from diffusion.arithmetic import process_slice


class StepRows(NamedTuple):
    """The samples of one step over all processes; the position in these tensors is a sample's global row number.

    Attributes:
        prompt_index: position of each sample's prompt in the data set.
        group_ids: step * num_prompts + prompt_index, so unique for each (step, prompt); ids, never prompt texts.
    """

    prompt_index: Int[Tensor, "n"]
    group_ids: Int[Tensor, "n"]


def step_rows(num_prompts: int, prompts_per_step: int, group_size: int, seed: int, step: int) -> StepRows:
    """The K-repeat sampler: `prompts_per_step` distinct prompts, each exactly `group_size` times, in random order.

    Steps walk through shuffled epochs: every prompt is used once before any is used again, also where a step spans
    two epochs (the new epoch then starts with prompts that the step does not hold yet).

    Args:
        num_prompts: prompts in the data set.
        prompts_per_step: distinct prompts of a step, over all processes.
        group_size: samples of each.
        seed: of the run.
        step: number of the step, from 0.

    Raises:
        AlignError: fewer prompts in the data set than in a step.
        ValueError: a count below one, or a negative step.
    """
    if min(prompts_per_step, group_size) < 1 or step < 0:
        raise ValueError(
            f"expected prompts_per_step and group_size of at least 1 and step of at least 0; "
            f"found {prompts_per_step}, {group_size} and {step}"
        )
    if num_prompts < prompts_per_step:
        raise AlignError(
            f"expected {prompts_per_step} distinct prompts a step (rollout.prompts_per_step), found {num_prompts}.",
            f"Set rollout.prompts_per_step to at most {num_prompts}, or add prompts.",
        )
    prompts = _step_prompts(num_prompts, prompts_per_step, seed, step).repeat_interleave(group_size)
    order = torch.randperm(len(prompts), generator=generator(seed, "row_order", step))
    return StepRows(prompts[order], step * num_prompts + prompts[order])


def _step_prompts(num_prompts: int, per_step: int, seed: int, step: int) -> Int[Tensor, "p"]:
    """Distinct prompts of a step: its window of the concatenated epochs."""
    epoch, start = divmod(step * per_step, num_prompts)
    window = _epoch_order(num_prompts, per_step, seed, epoch)[start : start + per_step]
    if len(window) == per_step:
        return window
    return torch.cat([window, _epoch_order(num_prompts, per_step, seed, epoch + 1)[: per_step - len(window)]])


def _epoch_order(num_prompts: int, per_step: int, seed: int, epoch: int) -> Int[Tensor, "num_prompts"]:
    """Order of an epoch: its own shuffle, with the prompts that a step spanning two epochs holds already moved out
    of that step.

    An epoch's order thus depends on the end of the one before. That chain is short: it starts afresh where an
    epoch and a step begin together, and with 2 steps or more in an epoch the end is not touched by what was moved
    at the start.
    """
    period = per_step // math.gcd(num_prompts, per_step)  # every so many epochs, an epoch and a step begin together
    first = epoch - epoch % period
    if num_prompts >= 2 * per_step:
        first = max(first, epoch - 1)
    order = _shuffle(num_prompts, seed, first)
    for number in range(first + 1, epoch + 1):
        held = number * num_prompts % per_step  # prompts that the spanning step takes from the epoch before
        order = _moved_back(_shuffle(num_prompts, seed, number), order[num_prompts - held :], per_step - held)
    return order


def _shuffle(num_prompts: int, seed: int, epoch: int) -> Int[Tensor, "num_prompts"]:
    return torch.randperm(num_prompts, generator=generator(seed, "prompt_order", epoch))


def _moved_back(order: Int[Tensor, "p"], held: Int[Tensor, "h"], places: int) -> Int[Tensor, "p"]:
    """`order` with its first `places` entries free of `held`; everything else keeps its order."""
    free = ~torch.isin(order, held)
    early = free & (free.cumsum(0) <= places)
    return torch.cat([order[early], order[~early]])


def process_rows(rows: int, updates: int, rank: int, world: int) -> Int[Tensor, "local"]:
    """Global row numbers of one process, in the order in which it uses them.

    The rows are cut into `updates` contiguous chunks and each chunk into `world` contiguous slices: update u of
    this process takes the u-th of `updates` equal parts of the result. Slices differ by at most one row where the
    processes do not divide a chunk.

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
    start, end = process_slice(chunk, rank, world)
    return (torch.arange(updates)[:, None] * chunk + torch.arange(start, end)).flatten()
