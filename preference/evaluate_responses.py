"""Held-out single answers: how likely they are. For methods that are trained on such; pairs are in `evaluate.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from align.heldout import ALL, EvaluatedRow, user_groups
from preference.evaluate import shared_table

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from preference.forward import SequenceScorer
    from preference.stored_pairs import StoredResponses

SUM, TOKENS, ENTROPY = range(3)
"""Columns of the table: log-probability of an answer (nats), its tokens, their entropies (nats), summed."""


class ResponseEvaluator:
    """Scores held-out answers; the interface of `PairEvaluator`.

    Args:
        scorer: the pass of the network.
        answers: held-out prompts with an answer each.
        processes: who shares the work.
        batch_size: answers of a pass.
        group_column: column that says whom an answer stands for.
    """

    def __init__(
        self,
        scorer: SequenceScorer,
        answers: StoredResponses,
        *,
        processes: Processes,
        batch_size: int,
        group_column: str | None = None,
    ) -> None:
        self._scorer, self._answers = scorer, answers
        self._processes, self._size = processes, batch_size
        self._user_groups = user_groups(answers.data.columns, group_column, len(answers.data))

    @torch.no_grad()
    def table(self) -> Float[Tensor, "n 3"]:
        """The numbers of all answers, on every process. A collective."""
        return shared_table(self._score, len(self._answers), 3, processes=self._processes, batch_size=self._size)

    def rows(self, table: Float[Tensor, "n 3"]) -> list[EvaluatedRow]:
        """One row per answer, with its log-probability in nats a token."""
        data = self._answers.data
        groups = data.columns.get("class") or [None] * len(data)
        averages = (table[:, SUM] / table[:, TOKENS]).tolist()
        return [
            EvaluatedRow(
                number=number,
                prompt=prompt,
                group=ALL if group is None else str(group),
                seed=0,
                rewards={"response_log_prob": average},
                user_group=self._user_groups[number],
            )
            for number, (prompt, group, average) in enumerate(zip(data.prompts, groups, averages, strict=True))
        ]

    def figures(self, table: Float[Tensor, "n 3"]) -> dict[str, float]:
        """Loss and entropy, nats a token, over all tokens of all answers; the perplexity."""
        tokens = table[:, TOKENS].sum()
        loss = -table[:, SUM].sum() / tokens
        return {
            "loss": float(loss),
            "perplexity": float(loss.exp()),
            "entropy": float(table[:, ENTROPY].sum() / tokens),
        }

    def _score(self, rows: Tensor) -> Float[Tensor, "b 3"]:
        scores = self._scorer.without_gradient(self._answers.groups(rows), ("entropy",))
        entropy = scores.table(scores.extras["entropy"]).sum(dim=1)
        return torch.stack([scores.sums().double(), scores.lengths.double(), entropy.double()], dim=1).cpu()
