"""Which prompts a step trains on and how its samples are grouped: a pure function of (seed, step)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from align.engine.epochs import epoch_rows, process_rows
from align.engine.random import generator
from align.errors import AlignError

__all__ = ["StepRows", "process_rows", "step_rows"]


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
    prompts = epoch_rows(num_prompts, prompts_per_step, seed, step, "prompt_order").repeat_interleave(group_size)
    order = torch.randperm(len(prompts), generator=generator(seed, "row_order", step))
    return StepRows(prompts[order], step * num_prompts + prompts[order])
