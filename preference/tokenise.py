"""Texts -> token ids: one begin token, an end token that is trained, the answer's place found by ids, lengths kept.

    P = ids(prompt),  W = ids(prompt + answer)
    prompt = longest common prefix of P and every W of the row,    answer = what W has behind it

One prompt for both answers, whatever the tokenizer merges at the boundary. Masks come from these lengths, never from
comparing ids with the padding id, so the padding token may be any token, or missing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from align.errors import AlignError
from preference.config.data import TokensConfig
from preference.data import DataReport, Texts, bad_rows_error, listed, with_notes
from preference.formats import TextRow, Unusable, readable
from preference.special import Ids, SpecialTokens
from preference.templates import Rendered, Templates
from preference.tokens import TokenPairs, TokenPrompts, TokenResponses

BATCH = 1024
"""Rows that are tokenised at once."""

LONG = "prompt longer than `data.max_prompt_length`"
FULL = "no room for an answer in `data.max_length`"
SAME = "chosen and rejected are the same tokens"


class _LeftOut(Exception):  # noqa: N818 - no mistake of the row
    """A row that is left out as the settings ask; the message says why."""


def tokenise_pairs(texts: Texts, tokenizer: Any, settings: TokensConfig) -> TokenPairs:
    """Pairs as token ids.

    Args:
        texts: of `read_pairs`.
        tokenizer: of transformers (Any: its tokenizers have no common type here).
        settings: lengths, ends, and what becomes of rows that cannot be used.

    Raises:
        AlignError: rows that cannot be used (with their places), no template, no row that is left.
    """
    made = _Tokeniser(tokenizer, settings).run(texts, answers=2)
    kept = made.kept
    return TokenPairs(
        rows=[texts.numbers[i] for i in kept],
        prompts=[readable(texts.rows[i].prompt) for i in kept],
        columns={name: [values[i] for i in kept] for name, values in texts.columns.items()},
        prompt_ids=[_tensor(row.prompt) for row in made.rows],
        chosen=[readable(texts.rows[i].responses[0]) for i in kept],
        rejected=[readable(texts.rows[i].responses[1]) for i in kept],
        chosen_ids=[_tensor(row.answers[0]) for row in made.rows],
        rejected_ids=[_tensor(row.answers[1]) for row in made.rows],
        report=made.report,
        tokenizer=made.tokenizer,
    )


def tokenise_responses(texts: Texts, tokenizer: Any, settings: TokensConfig) -> TokenResponses:
    """Single answers as token ids; see `tokenise_pairs`. Of a pair, the chosen answer is taken."""
    made = _Tokeniser(tokenizer, settings).run(texts, answers=1)
    kept = made.kept
    return TokenResponses(
        rows=[texts.numbers[i] for i in kept],
        prompts=[readable(texts.rows[i].prompt) for i in kept],
        columns={name: [values[i] for i in kept] for name, values in texts.columns.items()},
        prompt_ids=[_tensor(row.prompt) for row in made.rows],
        responses=[readable(texts.rows[i].responses[0]) for i in kept],
        response_ids=[_tensor(row.answers[0]) for row in made.rows],
        report=made.report,
        tokenizer=made.tokenizer,
    )


def tokenise_prompts(texts: Texts, tokenizer: Any, settings: TokensConfig) -> TokenPrompts:
    """Prompts as token ids, ready to be answered; see `tokenise_pairs`. Answers in `texts` are not looked at."""
    made = _Tokeniser(tokenizer, settings).run(texts, answers=0)
    kept = made.kept
    return TokenPrompts(
        rows=[texts.numbers[i] for i in kept],
        prompts=[readable(texts.rows[i].prompt) for i in kept],
        columns={name: [values[i] for i in kept] for name, values in texts.columns.items()},
        prompt_ids=[_tensor(row.prompt) for row in made.rows],
        report=made.report,
        tokenizer=made.tokenizer,
    )


@dataclass(frozen=True)
class _Row:
    """Ids of a row."""

    prompt: Ids
    answers: tuple[Ids, ...]


@dataclass(kw_only=True)
class _Made:
    """All rows that can be used, and what was done."""

    kept: list[int] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    report: DataReport
    tokenizer: str


class _Tokeniser:
    """The walk of a row; `notes` counts what is done on the way."""

    def __init__(self, tokenizer: Any, settings: TokensConfig) -> None:
        self.templates = Templates(tokenizer, settings.template_options)
        self.special = SpecialTokens(tokenizer)
        self.settings = settings

    def run(self, texts: Texts, answers: int) -> _Made:
        made = _Made(report=texts.report, tokenizer=self._fingerprint())
        for start in range(0, len(texts), BATCH):
            self._batch(texts, range(start, min(start + BATCH, len(texts))), answers, made)
        if made.bad and self.settings.bad_rows == "error":
            raise bad_rows_error(texts.report.source, made.bad)
        if made.refused:
            raise _too_long(texts.report.source, made.refused)
        if made.bad:
            made.dropped["not usable"] += len(made.bad)
        if not made.rows:
            raise _nothing_left(texts.report.source, made)
        made.report = with_notes(texts.report, len(made.rows), made.dropped, made.notes, made.bad)
        return made

    def _batch(self, texts: Texts, rows: Iterable[int], answers: int, made: _Made) -> None:
        rendered: list[tuple[int, Rendered]] = []
        for row in rows:
            given = texts.rows[row]
            try:
                rendered.append((row, self.templates.render(_first(given, answers))))
            except Unusable as problem:
                made.bad.append(f"{texts.places[row]}: {problem}")
        encoded = self._encode([item for _, item in rendered])
        for (row, item), (prompt, *wholes) in zip(rendered, encoded, strict=True):
            notes: Counter[str] = Counter()
            try:
                ids = self._cut(self._split(item, prompt, wholes, notes), notes)
            except Unusable as problem:
                made.bad.append(f"{texts.places[row]}: {problem}")
            except _LeftOut as reason:
                if self.settings.long_prompts == "refuse" and str(reason) in (LONG, FULL):
                    made.refused.append(f"{texts.places[row]}: {len(prompt)} tokens: {reason}")
                made.dropped[str(reason)] += 1
            else:
                made.kept.append(row)
                made.rows.append(ids)
                made.notes.update(notes)

    def _encode(self, items: Sequence[Rendered]) -> list[list[Ids]]:
        """Ids of the prompt and of each whole text, all rows of a kind in one call of the tokenizer."""
        found: list[list[Ids]] = [[] for _ in items]
        for is_chat in (False, True):
            chosen = [i for i, item in enumerate(items) if item.is_chat is is_chat]
            texts = [text for i in chosen for text in (items[i].prompt, *items[i].wholes)]
            ids = iter(self.special.encode(texts, special=not is_chat))
            for i in chosen:
                found[i] = [next(ids) for _ in range(1 + len(items[i].wholes))]
        return found

    def _split(self, item: Rendered, prompt: Ids, wholes: list[Ids], notes: Counter[str]) -> _Row:
        """Prompt and answers of a row."""
        special = self.special
        if not item.is_chat:
            prompt = special.without_added_end(prompt)
        before = prompt
        prompt, wholes = special.begun(prompt), [special.begun(ids) for ids in wholes]
        if len(prompt) != len(before):
            notes["begin tokens put before or taken from the texts"] += 1
        if not prompt:
            if special.bos is None:
                raise Unusable("the prompt is empty, and the tokenizer has no begin token that could stand for it")
            prompt, wholes = [special.bos], [[special.bos, *ids] for ids in wholes]
        shared = min((_common(prompt, ids) for ids in wholes), default=len(prompt))
        if not shared:
            raise Unusable("the tokenizer merges all of the prompt with the answer, so no prompt is left")
        if item.own_start:
            notes["answers begun otherwise than the generation prompt"] += 1
        elif shared < len(prompt):
            notes["prompts whose last token merges with the answer"] += 1
        return _Row(prompt[:shared], tuple(self._ended(ids[shared:], item, notes) for ids in wholes))

    def _ended(self, answer: Ids, item: Rendered, notes: Counter[str]) -> Ids:
        """An answer with its end token."""
        settings, special = self.settings, self.special
        end = special.end_of(answer)
        wanted = settings.append_eos == "always" or (settings.append_eos == "plain" and not item.is_chat)
        has_eos = end is not None and answer[end] == special.eos
        if settings.strip_after_eos and end is not None:
            answer = answer[: end + 1]
        if wanted and not has_eos:
            if special.eos is None:
                raise AlignError(
                    "answers should end with the tokenizer's EOS, but it has none.",
                    "Set `data.append_eos: never`, or give the tokenizer an end token.",
                )
            return [*answer, special.eos]
        if end is None:
            notes["answers without an end token"] += 1
        return answer

    def _cut(self, row: _Row, notes: Counter[str]) -> _Row:
        """A row within the lengths."""
        settings = self.settings
        prompt = row.prompt
        if len(prompt) > settings.max_prompt_length:
            if settings.long_prompts in ("skip", "refuse"):
                raise _LeftOut(LONG)
            prompt = self._cut_prompt(prompt)
            notes["prompts cut"] += 1
        room = settings.max_length - len(prompt)
        if row.answers and room < 1:
            raise _LeftOut(FULL)
        answers = tuple(answer[:room] for answer in row.answers)
        notes["answers cut"] += sum(len(answer) > room for answer in row.answers)
        if any(not answer for answer in answers):
            raise Unusable("an answer has no token of its own")
        if len(answers) == 2 and answers[0] == answers[1]:
            raise _LeftOut(SAME)
        return _Row(prompt, answers)

    def _cut_prompt(self, prompt: Ids) -> Ids:
        """The end of a prompt behind its begin token, or its start."""
        length = self.settings.max_prompt_length
        if self.settings.long_prompts == "keep_start":
            return prompt[:length]
        head = prompt[:1] if self.special.adds_bos and prompt[:1] == [self.special.bos] else []
        return [*head, *prompt[len(prompt) - (length - len(head)) :]]

    def _fingerprint(self) -> str:
        settings = self.settings
        parts = [self.special.fingerprint(), settings.max_length, settings.max_prompt_length, settings.long_prompts]
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _first(row: TextRow, answers: int) -> TextRow:
    """The row with its first so many answers."""
    return row if len(row.responses) == answers else replace(row, responses=row.responses[:answers])


def _common(first: Ids, second: Ids) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)


def _tensor(ids: Ids) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64)


def _too_long(source: str, refused: Sequence[str]) -> AlignError:
    rows = "1 row is" if len(refused) == 1 else f"{len(refused)} rows are"
    return AlignError(
        "\n".join([f"{source}: {rows} too long:", *listed(refused)]),
        "Raise `data.max_prompt_length` and `data.max_length`, or let `data.long_prompts` cut or skip them.",
    )


def _nothing_left(source: str, made: _Made) -> AlignError:
    reasons = [f"{count} left out: {reason}" for reason, count in made.dropped.items()]
    example = f"; the first: {made.bad[0]}" if made.bad else ""
    return AlignError(
        f"{source}: no row is left ({', '.join(reasons)}{example}).",
        "Raise `data.max_length` and `data.max_prompt_length`, or repair the rows.",
    )
