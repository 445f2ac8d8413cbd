"""What is logged of pairs, in training and of held-out ones: rewards, log-probabilities, lengths as TRL names them, and
the ranking.

Table with formulas, healthy ranges and remedies: `align/report/metrics/preference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from preference.ranking import (
    BETAS,
    both_falling,
    difficulty,
    idealised_ranking_accuracy,
    ranking_accuracy,
    reward_accuracy,
)
from preference.scores import Sides

Metrics = dict[str, Tensor]


def reward_metrics(rewards: Sides) -> Metrics:
    """Implicit rewards of chosen and rejected answers."""
    return {
        "rewards/chosen": rewards.chosen.mean(),
        "rewards/rejected": rewards.rejected.mean(),
        "rewards/margins": (rewards.chosen - rewards.rejected).mean(),
        "rewards/accuracies": reward_accuracy(*rewards),
    }


def policy_metrics(sums: Sides, lengths: Sides) -> Metrics:
    """Log-probabilities, lengths, and whether the policy ranks pairs as they are annotated.

    Args:
        sums: log pi(y | x), nats.
        lengths: tokens.
    """
    return {
        "logps/chosen": sums.chosen.mean(),
        "logps/rejected": sums.rejected.mean(),
        "lengths/chosen": lengths.chosen.double().mean(),
        "lengths/rejected": lengths.rejected.double().mean(),
        "ranking/accuracy": ranking_accuracy(*sums),
        "ranking/accuracy_normalised": ranking_accuracy(*per_token(sums, lengths)),
    }


def reference_metrics(sums: Sides, ref_sums: Sides) -> Metrics:
    """How far the policy has moved from the reference, and how hard the pairs were for that."""
    moved = both_falling(*sums, *ref_sums)
    return {
        "logps/chosen_change": moved.chosen,
        "logps/rejected_change": moved.rejected,
        "logps/both_falling": moved.share,
        "ranking/difficulty": difficulty(*ref_sums).mean(),
    }


def idealised_metrics(
    sums: Sides, ref_sums: Sides, betas: Sequence[float] = BETAS, rates: Float[Tensor, "n"] | None = None
) -> Metrics:
    """What the best policy of the loss could reach, and how far the trained one is from it.

    Args:
        sums: of the policy.
        ref_sums: of the reference.
        betas: that of the training, or the usual ones: then the median over them is meant.
        rates: share of annotators who prefer the chosen answer; None = 1 for all.
    """
    rate = 1.0 if rates is None else rates.to(ref_sums.chosen.device)
    ideal = idealised_ranking_accuracy(*ref_sums, betas=betas, annotator_rate=rate)
    return {
        "ranking/idealised_accuracy": ideal.median,
        "ranking/alignment_gap": ideal.median - ranking_accuracy(*sums),
        **({"ranking/idealised_lowest": ideal.lowest, "ranking/idealised_highest": ideal.highest} if betas[1:] else {}),
    }


def per_token(sums: Sides, lengths: Sides) -> Sides:
    """Averages over tokens."""
    return Sides(sums.chosen / lengths.chosen, sums.rejected / lengths.rejected)
