"""What methods that learn from teacher records do alike: find the records of a micro-batch, weigh by tokens.

Their losses are means over tokens, of the chosen answers and of the others apart. The engine weighs micro-batches by
pairs, so a micro-batch's loss is

    (its sums over tokens / tokens of the update) times pairs of the update / pairs of the micro-batch

and adds up to the mean over all tokens of the update whatever the cuts and the number of processes are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.types import LossOutput
from preference.losses import PairLosses
from preference.pair_method import PairMethod, likelihoods
from preference.scores import SequenceScores, sides

if TYPE_CHECKING:
    from preference.batches import PairBatch
    from preference.layout import Layout
    from preference.records import TeacherRecords


@dataclass(frozen=True)
class Tokens:
    """Tokens of an update, over all processes: of the chosen answers and of the others."""

    chosen: int
    other: int


class TaughtMethod(PairMethod):
    """A method on pairs whose loss reads teacher records. It needs `PairParts.records` to train, not to evaluate."""

    _other_tokens = 0

    @abstractmethod
    def tables(self, micro: PairBatch, layout: Layout) -> dict[str, Float[Tensor, "a s *k"]]:
        """A pass: what the loss reads of student and teachers, by answer (2 i chosen, 2 i + 1 the other) and token."""

    @abstractmethod
    def distil(self, tables: Mapping[str, Tensor], size: Tokens) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of some pairs as sums over their tokens / tokens of the update, and its parts for the log.

        Args:
            tables: of `tables`, or their rows of some pairs.
            size: of the update.
        """

    def compare(self, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """Of pairs without records: the likelihood of the chosen answer, both averages as rewards."""
        return likelihoods(scores)

    def judge(self, micro: PairBatch, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """With records the losses are the method's: each pair's share of the loss of one update of all these pairs,
        times their number, so that their mean is that loss.
        """
        found = self.compare(scores, reference)
        if self._parts.records is None:
            return found
        data: Any = self._parts.pairs.data  # Any: as in `prepare_update`
        size = Tokens(*(sum(map(len, answers)) for answers in (data.chosen_ids, data.rejected_ids)))
        tables = self.tables(micro, scores.layout)
        pairs = [{name: value[2 * pair : 2 * pair + 2] for name, value in tables.items()} for pair in range(len(micro))]
        losses = torch.stack([self.distil(pair, size)[0] for pair in pairs])
        return found._replace(losses=losses * len(data))

    def prepare_update(self, update: int, rows: PairBatch) -> None:
        """How many pairs and tokens the update has over all processes."""
        super().prepare_update(update, rows)
        data: Any = self._parts.pairs.data  # Any: pairs, since these methods read no single answers
        places = self._parts.sampler(self._step).of_update(update).tolist()
        self._other_tokens = sum(len(data.rejected_ids[place]) for place in places)

    def loss(self, micro: PairBatch) -> LossOutput:
        """See the head of this file."""
        layout = self.scorer.lay(micro.groups())
        size = Tokens(chosen=self._size.chosen_tokens, other=self._other_tokens)
        loss, metrics = self.distil(self.tables(micro, layout), size)
        share = self._size.pairs / len(micro)
        lengths = sides(layout.lengths.double())
        return LossOutput(
            loss=loss * share,
            count=len(micro),
            metrics={
                **{name: value * share for name, value in metrics.items()},
                "lengths/chosen": lengths.chosen.mean(),
                "lengths/rejected": lengths.rejected.mean(),
            },
        )

    def records(self, micro: PairBatch, layout: Layout) -> dict[str, Tensor]:
        """Records of the tokens that have some, in the order of the layout, on its device.

        Args:
            micro: the pairs.
            layout: of the pairs.

        Raises:
            AlignError: the records are of other tokens.
        """
        records = self._records
        found = records.read(micro.rows, layout.labels[of_sides(layout, records.header.sides)])
        return {name: value.to(layout.labels.device) for name, value in found.items()}

    @property
    def _records(self) -> TeacherRecords:
        records = self._parts.records
        if records is None:
            raise ValueError("this method trains on teacher records, and was made without any (`PairParts.records`).")
        return records


def apart(tables: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows of chosen answers, and those of the others."""
    split = {name: sides(value) for name, value in tables.items()}
    return {name: part.chosen for name, part in split.items()}, {name: part.rejected for name, part in split.items()}


def of_sides(layout: Layout, wanted: tuple[str, ...]) -> Tensor:
    """Which scored tokens belong to these answers: in a layout of pairs even sequences are chosen, odd ones the others.

    Returns:
        Places in the layout's line of tokens, ascending.
    """
    odd = layout.sequence_ids % 2 == 1
    keep = (odd & ("rejected" in wanted)) | (~odd & ("chosen" in wanted))
    return keep.nonzero().flatten()
