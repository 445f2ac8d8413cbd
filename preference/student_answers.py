"""ADPA's states: the student's own answers to the training prompts, put in the place of the rejected ones.

They are found by the text of the prompt, never by the order of the rows. Of several answers to a prompt the first one
is taken. What the rejected answer was no longer matters: the method does not read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align.errors import AlignError
from preference.config import PairsConfig, PreferenceRun
from preference.config.teacher import AdpaConfig
from preference.data import DataReport, Texts, bad_rows_error, listed, read_responses, with_notes
from preference.formats import TextRow, Unusable, as_chat, normalise
from preference.tables import open_table
from preference.tokenise import tokenise_responses
from preference.tokens import TokenPairs, TokenResponses

CANDIDATES = "candidates"
"""Column of several answers to a prompt."""
NONE = "no answer of the student to this prompt"
OTHER = "the student's answer begins with other tokens of the prompt"


def as_states(pairs: TokenPairs, config: PreferenceRun, tokenizer: Any) -> TokenPairs:
    """The pairs with the student's answers, if the configuration names any.

    Args:
        pairs: of the training.
        config: of the run.
        tokenizer: the student's (Any: transformers' tokenizers have no common type here).

    Raises:
        AlignError: answers that cannot be read, or prompts without one.
    """
    algorithm = config.algorithm
    if not isinstance(algorithm, AdpaConfig) or algorithm.student_answers is None:
        return pairs
    answers = tokenise_responses(read_answers(algorithm.student_answers, config.data), tokenizer, config.data)
    return with_student_answers(pairs, answers, source=algorithm.student_answers, bad_rows=config.data.bad_rows)


def read_answers(source: str, settings: PairsConfig) -> Texts:
    """Prompts with an answer each: columns `prompt` and `completion`, or `candidates` as `align generate` writes them.

    Of several candidates the first one is taken.

    Args:
        source: file, folder or hub id.
        settings: what becomes of rows that cannot be used.

    Raises:
        AlignError: no such source or columns, or rows that cannot be used.
    """
    table = open_table(source)
    if not {"prompt", CANDIDATES} <= set(table.columns):
        return read_responses(source, settings, split="train")
    kept: dict[int, TextRow] = {}
    bad: list[str] = []
    for number, row in enumerate(table.rows):
        try:
            kept[number] = _first_candidate(row)
        except Unusable as problem:
            bad.append(f"{table.place(number)}: {problem}")
    if bad and (settings.bad_rows == "error" or not kept):
        raise bad_rows_error(source, bad)
    return Texts(
        rows=tuple(as_chat(row) if settings.plain_as_chat else row for row in kept.values()),
        numbers=tuple(kept),
        places=tuple(table.place(number) for number in kept),
        columns={},
        report=DataReport(source=source, read=len(table), used=len(kept), dropped={"not usable": len(bad)}),
    )


def _first_candidate(row: Mapping[str, Any] | str) -> TextRow:
    if isinstance(row, str):
        raise Unusable(row)
    candidates = row.get(CANDIDATES)
    if not isinstance(candidates, list) or not candidates:
        raise Unusable(f"`{CANDIDATES}` should be a list of texts, found {str(candidates)[:40]!r}")
    is_chat = not isinstance(row.get("prompt"), str)
    answer = [{"role": "assistant", "content": candidates[0]}] if is_chat else candidates[0]
    return normalise(row.get("prompt"), [answer], (CANDIDATES,), row)


def with_student_answers(
    pairs: TokenPairs, answers: TokenResponses, *, source: str = "student answers", bad_rows: str = "error"
) -> TokenPairs:
    """Pairs of the chosen answer and the student's.

    Args:
        pairs: prompts with a chosen and a rejected answer.
        answers: prompts with an answer of the student, in any order.
        source: their file, for messages.
        bad_rows: `error` stops at pairs without an answer, `skip` leaves them out and counts them.

    Raises:
        AlignError: pairs without an answer, or none that has one.
    """
    first: dict[str, int] = {}
    for number, prompt in enumerate(answers.prompts):
        first.setdefault(prompt, number)
    kept, ids, texts = [], [], []
    left_out: Counter[str] = Counter()
    bad: list[str] = []
    for row, prompt in enumerate(pairs.prompts):
        number = first.get(prompt)
        found = None if number is None else _answer(answers, number, pairs.prompt_ids[row])
        if number is None or found is None:
            reason = NONE if number is None else OTHER
            left_out[reason] += 1
            bad.append(f"row {pairs.rows[row]}: {reason}: {prompt[:60]!r}")
            continue
        kept.append(row)
        ids.append(found)
        texts.append(answers.responses[number])
    if bad and (bad_rows == "error" or not kept):
        raise _missing(source, bad, len(pairs))
    report = with_notes(pairs.report, len(kept), left_out, Counter(), bad)
    return replace(pairs.select(kept), rejected=texts, rejected_ids=ids, report=report)


def _answer(answers: TokenResponses, number: int, prompt: Tensor) -> Tensor | None:
    """Tokens behind the pair's prompt; None if the two prompts are not the same tokens."""
    whole = torch.cat([answers.prompt_ids[number], answers.response_ids[number]])
    same = len(whole) > len(prompt) and torch.equal(whole[: len(prompt)], prompt)
    return whole[len(prompt) :] if same else None


def _missing(source: str, bad: list[str], pairs: int) -> AlignError:
    return AlignError(
        "\n".join([f"{source}: {len(bad)} of {pairs} training pairs have no answer of the student:", *listed(bad)]),
        "Let the student answer all prompts of `data.train` (`align generate`), or leave such pairs out with "
        "`data.bad_rows: skip`.",
    )
