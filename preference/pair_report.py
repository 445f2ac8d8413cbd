"""The ranking report of a set of pairs: from a table of their log-probabilities to the numbers that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from preference.ranking import (
    BETAS,
    both_falling,
    difficulty,
    idealised_ranking_accuracy,
    ranked_correctly,
    ranking_accuracy,
    reward_accuracy,
)


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

    @property
    def averages(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Log-probabilities a token of chosen and rejected answers."""
        return self["chosen"] / self["chosen_tokens"], self["rejected"] / self["rejected_tokens"]


def pair_rewards(table: PairTable) -> list[dict[str, float | None]]:
    """Of each pair, the numbers of which more is better: they are compared before and after training."""
    averages = table.averages
    columns = {
        "ranking_accuracy": ranked_correctly(table["chosen"], table["rejected"]),
        "ranking_accuracy_normalised": ranked_correctly(*averages),
        "likelihood_margin": table["chosen"] - table["rejected"],
        "chosen_log_prob": averages[0],
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
    policy, ref = (table["chosen"], table["rejected"]), (table["ref_chosen"], table["ref_rejected"])
    rates = 1.0 if table.rates is None else table.rates
    ideal = idealised_ranking_accuracy(*ref, betas=BETAS if beta is None else (beta,), annotator_rate=rates)
    normalised = idealised_ranking_accuracy(
        *(value / table[f"{side}_tokens"] for value, side in zip(ref, ("chosen", "rejected"), strict=True)),
        betas=BETAS if beta is None else (beta,),
        annotator_rate=rates,
    )
    moved = both_falling(*policy, *ref)
    accuracy = ranking_accuracy(*policy)
    found: dict[str, Tensor] = {
        "loss": table["loss"].mean(),
        "rewards/chosen": table["chosen_reward"].mean(),
        "rewards/rejected": table["rejected_reward"].mean(),
        "rewards/margins": (table["chosen_reward"] - table["rejected_reward"]).mean(),
        "rewards/accuracies": reward_accuracy(table["chosen_reward"], table["rejected_reward"]),
        "logps/chosen": policy[0].mean(),
        "logps/rejected": policy[1].mean(),
        "logps/chosen_change": moved.chosen,
        "logps/rejected_change": moved.rejected,
        "logps/both_falling": moved.share,
        "ranking/accuracy": accuracy,
        "ranking/accuracy_normalised": ranking_accuracy(*table.averages),
        "ranking/idealised_accuracy": ideal.median,
        "ranking/idealised_accuracy_normalised": normalised.median,
        "ranking/alignment_gap": ideal.median - accuracy,
        "ranking/difficulty": difficulty(*ref).mean(),
        "entropy": table["entropy"].sum() / (table["chosen_tokens"] + table["rejected_tokens"]).sum(),
    }
    if beta is None:
        found |= {"ranking/idealised_lowest": ideal.lowest, "ranking/idealised_highest": ideal.highest}
    return {name: float(value) for name, value in found.items()}
