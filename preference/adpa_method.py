"""ADPA as the loop sees it. The loss is `preference.adpa`; log-ratios of the teachers come from records. Page:
docs/adpa.md.

The student's own answer stands where other methods have the rejected one (`preference.student_answers`); the released
code does the same. Of the chosen answer the supervised term reads the tokens alone, so it needs no records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from preference.adpa import adpa_advantages, adpa_loss
from preference.config.teacher import AdpaConfig
from preference.logprobs import Head, log_probs_at, score_tokens
from preference.taught import TaughtMethod, Tokens, apart, of_sides

if TYPE_CHECKING:
    from preference.batches import PairBatch
    from preference.layout import Layout


class Adpa(TaughtMethod):
    """The method, as the loop sees it."""

    def tables(self, micro: PairBatch, layout: Layout) -> dict[str, Float[Tensor, "a s *k"]]:
        """Advantages, and the student's log-probabilities at the teachers' entries and at the chosen tokens."""
        config: AdpaConfig = self.config
        record = self.records(micro, layout)
        advantages = adpa_advantages(
            record["ratios"],
            torch.zeros_like(record["ratios"]),
            advantage_beta=config.advantage_beta,
            clip=config.clip,
        )
        chosen, states = of_sides(layout, ("chosen",)), of_sides(layout, ("rejected",))
        if not config.score_end:
            last = layout.token_ids[states] == layout.lengths[layout.sequence_ids[states]] - 1
            advantages = torch.where(last[:, None], 0.0, advantages)
        own, at = self.scorer.read(layout, read_student, chosen, layout.labels[chosen], states, record["ids"])
        lines = {"advantages": (advantages, states), "student": (at, states), "own": (own, chosen)}
        tables = {name: layout.per_response(_spread(*line, layout)) for name, line in lines.items()}
        return {**tables, "mask": layout.response_mask()}

    def distil(self, tables: Mapping[str, Tensor], size: Tokens) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `preference.adpa.adpa_loss`."""
        config: AdpaConfig = self.config
        chosen, other = apart(tables)
        found = adpa_loss(
            other["student"],
            other["advantages"],
            other["mask"],
            chosen["own"],
            chosen["mask"],
            gamma=config.gamma,
            sft_weight=config.sft_weight,
            token_count=size.other,
            chosen_token_count=size.chosen,
        )
        return found.loss, {"nll_loss": found.sft, "teacher/advantage": found.advantage}


def read_student(
    hidden: Tensor,
    head: Head,
    chosen: Tensor,
    labels: Tensor,
    states: Tensor,
    ids: Tensor,
    *,
    memory: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen tokens [c], and of the teachers' entries at the student's states [m, k].

    Args:
        hidden: states that predict all tokens of a layout.
        head: of the student.
        chosen: places of the chosen tokens among them.
        labels: the chosen tokens.
        states: places of the student's tokens.
        ids: the teachers' entries there.
        memory: bytes that logits may take.
    """
    own = score_tokens(hidden[chosen], head, labels, memory=memory).log_probs
    return own, log_probs_at(hidden[states], head, ids, memory=memory)


def _spread(values: Tensor, places: Tensor, layout: Layout) -> Tensor:
    """Values of some tokens in the line of all tokens, 0 elsewhere."""
    line = values.new_zeros(len(layout.labels), *values.shape[1:])
    return line.index_put((places,), values)
