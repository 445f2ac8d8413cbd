"""Rows of token ids: pairs, single answers, prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from jaxtyping import Int
from torch import Tensor

from preference.data import DataReport


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """What all kinds have; lists have one entry a row.

    Attributes:
        rows: row of the source, from 0.
        prompts: prompts as people read them.
        prompt_ids: tokens before the answer, with the begin token if there is one.
        columns: further columns (Any: a user's data).
        report: what became of the rows of the source.
        tokenizer: fingerprint of tokenizer, template and lengths.
    """

    rows: list[int]
    prompts: list[str]
    prompt_ids: list[Int[Tensor, "_"]]
    columns: Mapping[str, list[Any]]
    report: DataReport
    tokenizer: str

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> Self:
        """The rows at these positions, in that order."""
        picked: dict[str, Any] = {
            item.name: [getattr(self, item.name)[i] for i in rows]
            for item in fields(self)
            if isinstance(getattr(self, item.name), list)
        }
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, **picked)

    def answer_ids(self) -> tuple[list[Int[Tensor, "_"]], ...]:
        """Tokens of the answers, one list for each answer of a row."""
        return ()

    def longest(self) -> int:
        """Tokens of the longest prompt with its longest answer."""
        answers = [max((len(ids[i]) for ids in self.answer_ids()), default=0) for i in range(len(self))]
        return max((len(prompt) + answer for prompt, answer in zip(self.prompt_ids, answers, strict=True)), default=0)

    def fingerprint(self) -> str:
        """Hash of all token ids, tokenizer, template and lengths: equal exactly where log-probabilities are."""
        digest = hashlib.blake2b(self.tokenizer.encode(), digest_size=16)
        for ids in (self.prompt_ids, *self.answer_ids()):
            for row in ids:
                digest.update(len(row).to_bytes(8, "little"))
                digest.update(row.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class TokenPairs(TokenRows):
    """Prompts with a chosen and a rejected answer.

    Attributes:
        chosen: chosen answers as people read them.
        rejected: the rejected ones.
        chosen_ids: tokens of the chosen answer, with its end token unless it was cut.
        rejected_ids: the same of the rejected one.
    """

    chosen: list[str]
    rejected: list[str]
    chosen_ids: list[Int[Tensor, "_"]]
    rejected_ids: list[Int[Tensor, "_"]]

    def answer_ids(self) -> tuple[list[Int[Tensor, "_"]], ...]:
        return self.chosen_ids, self.rejected_ids


@dataclass(frozen=True, kw_only=True)
class TokenResponses(TokenRows):
    """Prompts with one answer each.

    Attributes:
        responses: answers as people read them.
        response_ids: tokens of the answer, with its end token unless it was cut.
    """

    responses: list[str]
    response_ids: list[Int[Tensor, "_"]]

    def answer_ids(self) -> tuple[list[Int[Tensor, "_"]], ...]:
        return (self.response_ids,)


@dataclass(frozen=True, kw_only=True)
class TokenPrompts(TokenRows):
    """Prompts alone."""
