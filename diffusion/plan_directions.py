"""The plan's rows about directions: what is drawn, how the model is told, what the evaluation asks for. Torch-free."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from align.config.directions import described, shown_in_words
from align.inspect.plan import Row
from diffusion.config import DiffusionRun
from diffusion.config.directions import EmbeddingCondition, PromptCondition


def direction_rows(config: DiffusionRun) -> tuple[Row, ...]:
    """What is drawn and how the model is told; nothing where a run has no directions."""
    given = config.directions
    if given is None:
        return ()
    drawn = f"{described(given.sample, config.objectives())}; one for each of the {config.rollout.prompts_per_step}"
    return (
        Row(label="directions", value=given.sample.kind, note=f"{drawn} prompts of a step"),
        Row(label="told through", value=given.condition.kind, note=_told(given.condition)),
    )


def shown_directions(config: DiffusionRun) -> int:
    """Under how many directions a held-out prompt is drawn; 1 where there are none."""
    return 1 if config.directions is None else len(config.directions.shown_for(config.objectives()))


def shown_prompts(config: DiffusionRun, heldout: int) -> int:
    """How many of the held-out prompts are drawn."""
    limit = None if config.directions is None else config.directions.shown.prompts
    return heldout if limit is None else min(limit, heldout)


def shown_rows(config: DiffusionRun) -> tuple[Row, ...]:
    """The directions of the held-out evaluation."""
    given = config.directions
    if given is None:
        return ()
    rows = tuple(
        Row(label="", value="direction", note=text) for text in shown_in_words(given.shown_for(config.objectives()))
    )
    if given.shown.guidance == 1:
        return rows
    note = f"{given.shown.guidance:g}: a second pass without a direction in every step of the evaluation"
    return (*rows, Row(label="", value="guidance", note=note))


@singledispatch
def _told(condition: Any) -> str:
    """How the model is told (`Any`: the members of `Condition`)."""
    raise TypeError(f"no words for {type(condition).__name__}")


@_told.register
def _(condition: PromptCondition) -> str:
    return f"{condition.position} it: {condition.template or 'our words'}; every prompt is encoded anew in every step"


@_told.register
def _(condition: EmbeddingCondition) -> str:
    dropped = f"; {condition.dropout:.0%} of the groups without" if condition.dropout else ""
    return f"of the time, by two layers of width {condition.hidden} that begin at zero{dropped}"
