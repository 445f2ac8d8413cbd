"""What is logged of a micro-batch of pairs: rewards, log-probabilities and lengths as TRL names them, and the ranking.

Means over pairs. Table with formulas, healthy ranges and remedies: `align/report/metrics/preference.py`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from preference.losses import PairLosses
from preference.ranking import (
    both_falling,
    difficulty,
    ideally_ranked,
    ranking_accuracy,
    reward_accuracy,
)
from preference.scores import SequenceScores, Sides, sides


def reward_metrics(found: PairLosses) -> dict[str, Tensor]:
    """Implicit rewards."""
    return {
        "rewards/chosen": found.chosen_rewards.mean(),
        "rewards/rejected": found.rejected_rewards.mean(),
        "rewards/margins": found.margins.mean(),
        "rewards/accuracies": reward_accuracy(found.chosen_rewards, found.rejected_rewards),
    }


def policy_metrics(scores: SequenceScores) -> dict[str, Tensor]:
    """Log-probabilities, lengths, and whether the policy ranks pairs as they are annotated."""
    sums, averages = _constant(scores)
    lengths = sides(scores.lengths.double())
    return {
        "logps/chosen": sums.chosen.mean(),
        "logps/rejected": sums.rejected.mean(),
        "lengths/chosen": lengths.chosen.mean(),
        "lengths/rejected": lengths.rejected.mean(),
        "ranking/accuracy": ranking_accuracy(*sums),
        "ranking/accuracy_normalised": ranking_accuracy(*averages),
    }


def reference_metrics(
    scores: SequenceScores,
    reference: SequenceScores,
    *,
    beta: float | None,
    rates: Float[Tensor, "n"] | None = None,
) -> dict[str, Tensor]:
    """How far the policy has moved from the reference, and what the best policy of the loss could reach.

    Args:
        scores: of the policy.
        reference: of the same tokens.
        beta: weight of the KL penalty; None where the loss has another scale: then there is no idealised accuracy.
        rates: share of annotators who prefer the chosen answer; None = 1 for all.
    """
    policy, ref = _constant(scores)[0], _constant(reference)[0]
    moved = both_falling(*policy, *ref)
    metrics = {
        "logps/chosen_change": moved.chosen,
        "logps/rejected_change": moved.rejected,
        "logps/both_falling": moved.share,
        "ranking/difficulty": difficulty(*ref).mean(),
    }
    if beta is not None:
        ideal = ideally_ranked(*ref, beta=beta, annotator_rate=1.0 if rates is None else rates.to(ref.chosen.device))
        metrics["ranking/idealised_accuracy"] = ideal.double().mean()
        metrics["ranking/alignment_gap"] = ideal.double().mean() - ranking_accuracy(*policy)
    return metrics


def deviation(scores: SequenceScores, reference: SequenceScores) -> Float[Tensor, ""]:
    """Mean over answers of |log pi(y) - log pi_ref(y)| / |y|, nats a token: 0 before the first update, to rounding."""
    gap = scores.averages().detach() - reference.averages()
    return gap.abs().mean()


def _constant(scores: SequenceScores) -> tuple[Sides, Sides]:
    """Sums and averages without gradient."""
    sums = scores.sums().detach()
    return sides(sums), sides(sums / scores.lengths)
