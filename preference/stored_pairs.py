"""Pairs and single answers as a run reads them: tokenised rows, numbers beside them, the batch of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.errors import AlignError
from preference.batches import PairBatch, ResponseBatch
from preference.layout import Group
from preference.reference import ReferenceTable

if TYPE_CHECKING:
    from preference.sampler import PairSampler
    from preference.tokens import TokenPairs, TokenResponses

RATE_COLUMN = "annotator_rate"
"""Column with the share of annotators who prefer the chosen answer, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class UpdateSize:
    """What the update of a step holds, over all processes."""

    pairs: int
    chosen_tokens: int


@dataclass(frozen=True, kw_only=True)
class StoredPairs:
    """The pairs of a run.

    Attributes:
        data: tokenised pairs.
        reference: what the reference says of them, None where it is not stored.
        rates: of `annotator_rates`.
    """

    data: TokenPairs
    reference: ReferenceTable | None = None
    rates: Float[Tensor, "n"] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, rows: Int[Tensor, "n"], index: Int[Tensor, "n"]) -> PairBatch:
        """A batch of these places in the data.

        Args:
            rows: places.
            index: number of each in its step.
        """
        places = rows.tolist()
        return PairBatch(
            index=index,
            rows=rows,
            prompts=[self.data.prompt_ids[place] for place in places],
            chosen=[self.data.chosen_ids[place] for place in places],
            rejected=[self.data.rejected_ids[place] for place in places],
            reference=None if self.reference is None else self.reference.of(rows),
            rates=None if self.rates is None else self.rates[rows],
        )

    def groups(self, rows: Int[Tensor, "n"]) -> Sequence[Group]:
        """These places in the data as a layout takes them."""
        return self.batch(rows, rows).groups()

    def of_step(self, step: int, sampler: PairSampler) -> PairBatch:
        """This process's pairs of a step."""
        found = sampler(step)
        return self.batch(found.own, found.index)

    def size_of(self, step: int, update: int, sampler: PairSampler) -> UpdateSize:
        """Size of an update over all processes; no process has to ask another."""
        rows = sampler(step).of_update(update).tolist()
        return UpdateSize(pairs=len(rows), chosen_tokens=sum(len(self.data.chosen_ids[row]) for row in rows))


@dataclass(frozen=True, kw_only=True)
class StoredResponses:
    """The single answers of a run; the methods of `StoredPairs`.

    Attributes:
        data: tokenised prompts and answers.
    """

    data: TokenResponses

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, rows: Int[Tensor, "n"], index: Int[Tensor, "n"]) -> ResponseBatch:
        """A batch of these places in the data; see `StoredPairs.batch`."""
        places = rows.tolist()
        return ResponseBatch(
            index=index,
            rows=rows,
            prompts=[self.data.prompt_ids[place] for place in places],
            responses=[self.data.response_ids[place] for place in places],
        )

    def groups(self, rows: Int[Tensor, "n"]) -> Sequence[Group]:
        """These places in the data as a layout takes them."""
        return self.batch(rows, rows).groups()

    def of_step(self, step: int, sampler: PairSampler) -> ResponseBatch:
        """This process's answers of a step."""
        found = sampler(step)
        return self.batch(found.own, found.index)

    def size_of(self, step: int, update: int, sampler: PairSampler) -> UpdateSize:
        """Size of an update over all processes; no process has to ask another."""
        rows = sampler(step).of_update(update).tolist()
        return UpdateSize(pairs=len(rows), chosen_tokens=sum(len(self.data.response_ids[row]) for row in rows))


def annotator_rates(data: TokenPairs) -> Float[Tensor, "n"] | None:
    """Share of annotators who prefer each chosen answer, None where the data has no such column.

    Raises:
        AlignError: an entry is not a share.
    """
    column = data.columns.get(RATE_COLUMN)
    if column is None:
        return None
    for row, value in zip(data.rows, column, strict=True):
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise AlignError(
                f"row {row}: column `{RATE_COLUMN}` is the share of annotators who prefer the chosen answer, a number "
                f"in [0, 1]; found {value!r}.",
                "Correct it, or rename the column if it means something else.",
            )
    return torch.tensor(column, dtype=torch.float32)
