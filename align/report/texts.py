"""Answers of a language model to held-out prompts, before and after training: what the page shows for pictures."""

from __future__ import annotations

from dataclasses import dataclass

from align.report import words
from align.report.gains import ALL, pair_rows
from align.report.records import EvaluationRow, Run

SHOWN = 12
"""Answers that the page shows."""
IN_NATS = ("likelihood_margin", "chosen_log_prob")
"""Numbers of held-out pairs that would not fit into a chart of shares and rewards."""
LENGTH = 1200
"""Characters of an answer that the page shows."""
NEGLIGIBLE = 0.01
"""Of the fall of rejected answers: chosen ones that have fallen by less have stayed where they were."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text with its rewards, as a person reads it."""

    text: str
    scores: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """One held-out prompt and seed before and after; `same` where the answer has not changed."""

    prompt: str
    group: str
    before: Answer
    after: Answer
    same: bool


def text_pairs(run: Run) -> list[TextPair]:
    """The first answered prompts of the first and the last evaluation, not chosen by hand."""
    if len(run.evaluations) < 2:
        return []
    found = []
    for before, after in pair_rows(run.evaluations[0].rows, run.evaluations[-1].rows):
        if before.completion is None or after.completion is None:
            continue
        found.append(
            TextPair(
                prompt=after.prompt,
                group="" if after.group == ALL else after.group,
                before=_answer(before),
                after=_answer(after),
                same=before.completion == after.completion,
            )
        )
    return found[:SHOWN]


def falling(run: Run) -> list[str]:
    """A sentence where the answers of both sides have become less likely than under the reference.

    Read from the held-out pairs where there are any, since they are the same at each step. Nothing is said where the
    chosen answers have fallen by a hundredth of what the rejected ones have, or less.
    """
    sides = ("logps/chosen_change", "logps/rejected_change")
    for prefix, where in (("eval/", "held-out"), ("", "training")):
        values = [run.series(prefix + name)[1] for name in sides]
        if not all(values):
            continue
        chosen, rejected = (series[-1] for series in values)
        if rejected >= 0 or chosen >= NEGLIGIBLE * rejected:
            return []
        return [
            f"Chosen and rejected answers have both become less likely on {where} pairs ({words.number(chosen)} and "
            f"{words.number(rejected)} nats): the margin alone hides it. To a degree every loss of the difference does "
            "this; if answers get worse, add `algorithm.sft_weight`, raise `beta`, or lower the learning rate."
        ]
    return []


def _answer(row: EvaluationRow) -> Answer:
    scores = tuple((name, words.score(value)) for name, value in row.rewards.items())
    return Answer(text=words.shortened(row.completion or "", LENGTH), scores=scores)
