"""The ranking report of a set of pairs: from a table of their log-probabilities to the numbers that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from preference.pair_metrics import (
    Metrics,
    idealised_metrics,
    per_token,
    policy_metrics,
    reference_metrics,
    reward_metrics,
)
from preference.ranking import BETAS, ranked_correctly
from preference.scores import Sides


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Numbers of pairs.

    Attributes:
        values: one row per pair, columns as in `COLUMNS`: loss; rewards of both answers; summed log-probabilities
            (nats) and tokens of both; the same log-probabilities under the reference; entropies (nats) of all tokens,
            summed.
        rates: share of annotators who prefer the chosen answer; None = 1 for all.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "loss",
        "chosen_reward",
        "rejected_reward",
        "chosen",
        "rejected",
        "chosen_tokens",
        "rejected_tokens",
        "ref_chosen",
        "ref_rejected",
        "entropy",
    )

    values: Float[Tensor, "n c"]
    rates: Float[Tensor, "n"] | None = None

    def __getitem__(self, column: str) -> Float[Tensor, "n"]:
        return self.values[:, self.COLUMNS.index(column)]

    def both(self, chosen: str, rejected: str) -> Sides:
        """Two columns."""
        return Sides(self[chosen], self[rejected])


def pair_rewards(table: PairTable) -> list[dict[str, float | None]]:
    """Of each pair, the numbers of which more is better: they are compared before and after training."""
    sums, lengths = table.both("chosen", "rejected"), table.both("chosen_tokens", "rejected_tokens")
    averages = per_token(sums, lengths)
    columns = {
        "ranking_accuracy": ranked_correctly(*sums),
        "ranking_accuracy_normalised": ranked_correctly(*averages),
        "likelihood_margin": sums.chosen - sums.rejected,
        "chosen_log_prob": averages.chosen,
    }
    rows = torch.stack([column.double() for column in columns.values()], dim=1).tolist()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def figures(table: PairTable, *, beta: float | None) -> dict[str, float]:
    """Numbers of all pairs together, named as in training.

    Args:
        table: of held-out pairs.
        beta: weight of the KL penalty of the training, None where its loss has another scale: then the idealised
            accuracy is given for the usual betas, as the paper does.
    """
    sums, lengths = table.both("chosen", "rejected"), table.both("chosen_tokens", "rejected_tokens")
    ref = table.both("ref_chosen", "ref_rejected")
    betas = BETAS if beta is None else (beta,)
    normalised = idealised_metrics(per_token(sums, lengths), per_token(ref, lengths), betas, table.rates)
    found: Metrics = {
        "loss": table["loss"].mean(),
        **reward_metrics(table.both("chosen_reward", "rejected_reward")),
        **policy_metrics(sums, lengths),
        **reference_metrics(sums, ref),
        **idealised_metrics(sums, ref, betas, table.rates),
        "ranking/idealised_accuracy_normalised": normalised["ranking/idealised_accuracy"],
        "entropy": table["entropy"].sum() / (lengths.chosen + lengths.rejected).sum(),
    }
    return {name: float(value) for name, value in found.items()}
