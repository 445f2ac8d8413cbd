"""DCKD as the loop sees it: the loss is `preference.dckd`, the teacher's numbers are records. Page: docs/dckd.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from preference.config.teacher import DckdConfig
from preference.dckd import Distilled, dckd_loss
from preference.logprobs import Head, log_probs_of, map_logits
from preference.scores import sides
from preference.taught import TaughtMethod
from preference.teacher import TopK, at_ids

if TYPE_CHECKING:
    from preference.batches import PairBatch
    from preference.layout import Layout


class Dckd(TaughtMethod):
    """The method, as the loop sees it."""

    def distil(self, micro: PairBatch, layout: Layout) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `preference.dckd.dckd_loss`."""
        config: DckdConfig = self.config
        record = self.records(micro, layout)
        chosen_lp, at, rest = self.scorer.read(layout, read_student, layout.labels, record["ids"])
        teacher = TopK(ids=record["ids"], log_probs=record["log_probs"], log_rest=record["log_rest"])
        student = TopK(ids=record["ids"], log_probs=at, log_rest=rest)
        teachers, students = _tables(teacher, layout), _tables(student, layout)
        masks = sides(layout.response_mask())
        counts = (self._size.chosen_tokens, self._other_tokens)
        chosen, rejected = (
            Distilled(teacher=teachers[side], student=students[side], mask=masks[side], token_count=counts[side])
            for side in (0, 1)
        )
        found = dckd_loss(
            chosen,
            rejected,
            sides(layout.per_response(chosen_lp)).chosen,
            alpha=config.alpha,
            sft_weight=config.sft_weight,
            chosen_weight=config.chosen_weight,
            rejected_weight=config.rejected_weight,
            tail=config.tail,
        )
        metrics = {
            "nll_loss": found.sft,
            "teacher/kl_chosen": found.kl_chosen,
            "teacher/kl_rejected": found.kl_rejected,
        }
        return found.loss, metrics


def read_student(
    hidden: Tensor, head: Head, labels: Tensor, ids: Tensor, *, memory: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token its own log-probability [m], those of the teacher's entries [m, k] and of all others [m].

    Args:
        hidden: states that predict the tokens.
        head: of the student.
        labels: the tokens.
        ids: the teacher's entries.
        memory: bytes that logits may take.
    """

    def read(logits: Tensor, own: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        record = at_ids(logits, at)
        return log_probs_of(logits, own[:, None])[:, 0], record.log_probs, record.log_rest

    chunks = map_logits(read, hidden, head, labels, ids, memory=memory)
    own, at, rest = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return own, at, rest


def _tables(record: TopK, layout: Layout) -> tuple[TopK, TopK]:
    """Chosen and rejected answers apart, one row per answer."""
    parts = [sides(layout.per_response(part)) for part in (record.ids, record.log_probs, record.log_rest)]
    chosen, rejected = (
        TopK(ids=ids, log_probs=log_probs, log_rest=rest) for ids, log_probs, rest in zip(*parts, strict=True)
    )
    return chosen, rejected
