"""Rated answers in memory, and the batch of a step. Pairs are those of every other method (`preference.batches`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.batches import RowBatch

if TYPE_CHECKING:
    from align.rewards.scales import LabelScale
    from preference.ratings import RatedTexts
    from preference.sampler import PairSampler
    from preference.tokens import TokenResponses


@dataclass(frozen=True, kw_only=True)
class RatedBatch(RowBatch):
    """Answers with their labels.

    Attributes:
        sequences: token ids of prompt and answer.
        labels: in training units, NaN where there is none.
    """

    noun: ClassVar[str] = "answers"

    sequences: Sequence[Int[Tensor, "_"]]
    labels: Float[Tensor, "n k"]


@dataclass(frozen=True, kw_only=True)
class StoredRatings:
    """The rated answers of a run.

    Attributes:
        data: tokenised prompts and answers.
        labels: in training units, NaN where there is none.
        group_ids: equal for answers to the same prompt.
        scales: of the attributes, in the order of the columns.
    """

    data: TokenResponses
    labels: Float[Tensor, "n k"]
    group_ids: Int[Tensor, "n"]
    scales: tuple[LabelScale, ...]

    @classmethod
    def of(cls, data: TokenResponses, rated: RatedTexts, scales: Sequence[LabelScale]) -> StoredRatings:
        """Labels of the answers that have become tokens.

        Args:
            data: their `rows` are places in `rated`.
            rated: the ratings in the unit of the source.
            scales: one for each attribute.
        """
        values = torch.tensor(rated.values, dtype=torch.float64).reshape(len(rated), len(rated.names))[data.rows]
        units = [scale.to_unit(values[:, place]) for place, scale in enumerate(scales)]
        group_ids = torch.tensor(rated.group_ids, dtype=torch.int64)[data.rows]
        return cls(data=data, labels=torch.stack(units, dim=1).float(), group_ids=group_ids, scales=tuple(scales))

    def __len__(self) -> int:
        return len(self.data)

    def sequence(self, place: int) -> Int[Tensor, "_"]:
        """Prompt and answer."""
        return torch.cat([self.data.prompt_ids[place], self.data.response_ids[place]])

    def batch(self, rows: Int[Tensor, "n"], index: Int[Tensor, "n"]) -> RatedBatch:
        """A batch of these places in the data.

        Args:
            rows: places.
            index: number of each in its step.
        """
        return RatedBatch(
            index=index, sequences=[self.sequence(place) for place in rows.tolist()], labels=self.labels[rows]
        )

    def of_step(self, step: int, sampler: PairSampler) -> RatedBatch:
        """This process's answers of a step."""
        found = sampler(step)
        return self.batch(found.own, found.index)

    def labels_of(self, step: int, update: int, sampler: PairSampler) -> Float[Tensor, "u k"]:
        """Labels of an update over all processes; no process has to ask another."""
        return self.labels[sampler(step).of_update(update)]
