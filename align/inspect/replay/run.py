"""Shape and compare stored rewards once more, step after step, as the pipeline of a run does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.adapter.use import weigher_of
from align.config.needs import explain, unmet
from align.engine.reward_tables import StepTable
from align.errors import AlignError
from align.inspect.replay.changes import Change, compare
from align.inspect.replay.settings import ReplaySettings
from align.shaping.pipeline import SignalPipeline

BROUGHT = ("prompt_ids", "step", "prompt_weights")
"""What a stored table can bring for estimators, beside rewards and groups."""
CLOSE = 1e-4
"""Largest difference of advantages, in units of their root mean square, that counts as none: tables hold float32."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A step under other settings.

    Attributes:
        before: the step with the scores and advantages that it is compared with.
        scores: under the other settings, NaN where unscored.
        advantages: under the other settings.
        change: what became of the signal.
    """

    before: StepTable
    scores: Float[Tensor, "n"]
    advantages: Float[Tensor, "n"]
    change: Change


def replay(before: Sequence[StepTable], settings: ReplaySettings) -> list[Replayed]:
    """All steps under other settings, each compared with what it was.

    Args:
        before: in the order of the steps, with the advantages to compare with.
        settings: the other ones.

    Raises:
        AlignError: an estimator that reads what a table does not hold, or settings that do not fit the rewards.
    """
    found = []
    for step, after in zip(before, reshaped(before, settings), strict=True):
        change = compare(step.advantages, after.advantages, step.group_ids)
        found.append(Replayed(before=step, scores=after.scores, advantages=after.advantages, change=change))
    return found


def reshaped(tables: Sequence[StepTable], settings: ReplaySettings) -> list[StepTable]:
    """The tables with scores and advantages of these settings. Statistics that outlive a step begin with the first.

    Raises:
        AlignError: as `replay`.
    """
    pipeline = SignalPipeline(settings.pipeline)
    needs = pipeline.needs()
    missing = unmet(needs, BROUGHT)
    if missing:
        message, _ = explain(missing, BROUGHT)
        raise AlignError(
            f"these settings cannot be replayed: {message.partition('. ')[0]}, which a stored table does not hold.",
            "Choose an estimator that reads rewards and groups only (grpo, rloo, dr_grpo, flow_grpo, ...).",
        )
    wanted = {name for need in needs for name in need.fields}
    weigher = weigher_of(settings.pipeline.weights, [name for name, own in settings.weights.items() if own != 0])
    numbers: dict[str, int] = {}
    found = []
    for table in tables:
        for prompt in table.prompts:
            numbers.setdefault(prompt, len(numbers))
        bring = {"prompt_ids": torch.tensor([numbers[prompt] for prompt in table.prompts]), "step": table.step}
        inputs: dict[str, Any] = {name: value for name, value in bring.items() if name in wanted}
        if weigher is not None:
            inputs["prompt_weights"] = weigher.by_name(table.prompts)
        weights = torch.tensor([settings.weights.get(name, 0.0) for name in table.table.names])
        try:
            signal = pipeline(replace(table.table, weights=weights), table.group_ids, **inputs)
        except ValueError as error:
            raise AlignError(f"step {table.step} cannot be replayed: {error}", "Change weights or pipeline.") from error
        advantages = signal.advantages if signal.advantages.ndim == 1 else signal.advantages.mean(dim=1)
        found.append(replace(table, scores=signal.scores, advantages=advantages))
    return found


def reproduces(tables: Sequence[StepTable], own: ReplaySettings) -> tuple[bool, str]:
    """Whether the run's own settings give the advantages that the run has used, and a sentence about it.

    They do not where an estimator has read what is not stored, or where statistics of steps that were not kept matter.
    """
    try:
        again = reshaped(tables, own)
    except AlignError as error:
        return (
            False,
            f"The run's own settings cannot be replayed ({error.message}); compared is what it stored.",
        )
    stored = torch.cat([table.advantages for table in tables]).double()
    found = torch.cat([table.advantages for table in again]).double()
    size = max(float(stored.square().mean().sqrt()), 1e-12)
    worst = float((stored - found).abs().max()) / size
    if worst <= CLOSE:
        return True, "Checked: the run's own settings, replayed, give the advantages that it has used."
    return False, (
        f"The run's own settings, replayed, differ from the advantages that it has used by up to {worst:.2g} of their "
        "size: an estimator reads more than is stored, or keeps statistics of steps that are not."
    )
