"""Pairs of answers, and single answers, as the loop cuts them into updates and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from align.batches import RowBatch
from preference.layout import Group


@dataclass(frozen=True, kw_only=True)
class PairBatch(RowBatch):
    """Prompts with a chosen and a rejected answer each.

    Attributes:
        rows: place of each pair in the data.
        prompts: token ids, at least one each.
        chosen: token ids of the better answer, with its end token.
        rejected: those of the worse one.
        reference: of each pair, the reference's log-probabilities of the chosen tokens, then of the rejected ones; None
            where the method has no reference, or asks it at loss time.
        rates: share of annotators who prefer the chosen answer, where the data says.
    """

    noun: ClassVar[str] = "pairs"

    rows: Int[Tensor, "n"]
    prompts: Sequence[Int[Tensor, "_"]]
    chosen: Sequence[Int[Tensor, "_"]]
    rejected: Sequence[Int[Tensor, "_"]]
    reference: Sequence[Float[Tensor, "_"]] | None = None
    rates: Float[Tensor, "n"] | None = None

    def groups(self) -> list[Group]:
        """The pairs for `preference.layout`: sequence 2 i is the chosen, 2 i + 1 the rejected answer of pair i."""
        pairs = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return [Group(prompt=prompt, responses=(chosen, rejected)) for prompt, chosen, rejected in pairs]


@dataclass(frozen=True, kw_only=True)
class ResponseBatch(RowBatch):
    """Prompts with one answer each.

    Attributes:
        rows: place of each row in the data.
        prompts: token ids, at least one each.
        responses: token ids of the answer, with its end token.
    """

    noun: ClassVar[str] = "answers"

    rows: Int[Tensor, "n"]
    prompts: Sequence[Int[Tensor, "_"]]
    responses: Sequence[Int[Tensor, "_"]]

    def groups(self) -> list[Group]:
        """The rows for `preference.layout`: sequence i is the answer of row i."""
        return [
            Group(prompt=prompt, responses=(response,))
            for prompt, response in zip(self.prompts, self.responses, strict=True)
        ]
