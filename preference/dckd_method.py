"""DCKD as the loop sees it: the loss is `preference.dckd`, the teacher's numbers are records. Page: docs/dckd.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from preference.config.teacher import DckdConfig
from preference.dckd import Distilled, dckd_loss
from preference.logprobs import Head, log_probs_of, map_logits
from preference.scores import sides
from preference.taught import TaughtMethod, Tokens, apart
from preference.teacher import TopK, at_ids

if TYPE_CHECKING:
    from preference.batches import PairBatch
    from preference.layout import Layout


class Dckd(TaughtMethod):
    """The method, as the loop sees it."""

    def tables(self, micro: PairBatch, layout: Layout) -> dict[str, Float[Tensor, "a s *k"]]:
        """The teacher's entries, the student's at the same ids, and the student's own tokens."""
        record = self.records(micro, layout)
        own, at, rest = self.scorer.read(layout, read_student, layout.labels, record["ids"])
        read = {**{f"teacher/{name}": value for name, value in record.items()}, "student": at, "student/rest": rest}
        tables = {name: layout.per_response(value) for name, value in {**read, "own": own}.items()}
        return {**tables, "mask": layout.response_mask()}

    def distil(self, tables: Mapping[str, Tensor], size: Tokens) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `preference.dckd.dckd_loss`."""
        config: DckdConfig = self.config
        chosen, rejected = (
            Distilled(
                teacher=TopK(
                    ids=part["teacher/ids"], log_probs=part["teacher/log_probs"], log_rest=part["teacher/log_rest"]
                ),
                student=TopK(ids=part["teacher/ids"], log_probs=part["student"], log_rest=part["student/rest"]),
                mask=part["mask"],
                token_count=count,
            )
            for part, count in zip(apart(tables), (size.chosen, size.other), strict=True)
        )
        found = dckd_loss(
            chosen,
            rejected,
            sides(tables["own"]).chosen,
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
