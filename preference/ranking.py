"""Does the model rank a pair as its annotator did? Ranking accuracy, the best that DPO could reach, difficulty.

Not to be confused with the reward accuracy of DPO's logs, which compares changes of log-probability: here are the
log-probabilities themselves. Both are here, under different names.

References:
    Chen et al., "Preference Learning Algorithms Do Not Learn Preference Rankings", arXiv:2405.19534. Its released code
    divides summed log-probabilities where the formula subtracts them; we follow the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from align.objectives.units import precise

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""The betas over which the paper reports an idealised accuracy when the training's own is unknown."""

SURE = 1e-3
"""Taken from an annotator's rate of 1, and given to one of 0: their log-odds would be infinite."""


class Idealised(NamedTuple):
    """Idealised ranking accuracies over several betas, in [0, 1]."""

    lowest: Float[Tensor, ""]
    median: Float[Tensor, ""]
    highest: Float[Tensor, ""]


class Falling(NamedTuple):
    """How likelihoods have moved since the reference.

    Attributes:
        chosen: mean change of the chosen answers' log-probability, nats.
        rejected: the same of the rejected ones.
        share: share of pairs in which both have fallen although the margin has grown.
        warning: whether both means have fallen: mass goes to answers that nobody has judged.
    """

    chosen: Float[Tensor, ""]
    rejected: Float[Tensor, ""]
    share: Float[Tensor, ""]
    warning: Bool[Tensor, ""]


def ranked_correctly(chosen: Float[Tensor, "n"], rejected: Float[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """1[ pi(y_w | x) >= pi(y_l | x) ] of each pair.

    Args:
        chosen: log-probability of the chosen answer, nats: summed, or averaged over tokens for the length-normalised
            accuracy.
        rejected: the same of the rejected answer.
    """
    return precise(chosen) >= precise(rejected)


def ranking_accuracy(chosen: Float[Tensor, "n"], rejected: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Share of pairs that the model ranks as annotated, in [0, 1]. No reference is involved."""
    return ranked_correctly(chosen, rejected).to(torch.float64).mean()


def order_accuracy(log_probs: Float[Tensor, "n g"]) -> Float[Tensor, ""]:
    """Share of prompts whose g answers, given from best to worst, the model has in exactly that order."""
    values = precise(log_probs)
    return (values[:, :-1] >= values[:, 1:]).all(dim=1).to(torch.float64).mean()


def tie_accuracy(
    first: Float[Tensor, "n"], second: Float[Tensor, "n"], *, tolerance: float = 0.01
) -> Float[Tensor, ""]:
    """Share of pairs annotated as equally good whose probabilities are within the tolerance of each other.

    Args:
        first: length-normalised log-probability (average over tokens) of one answer, nats.
        second: of the other.
        tolerance: largest difference of the probabilities exp(average).
    """
    return ((precise(first).exp() - precise(second).exp()).abs() < tolerance).to(torch.float64).mean()


def reward_accuracy(chosen_rewards: Float[Tensor, "n"], rejected_rewards: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Share of pairs with r(y_w) > r(y_l): `rewards/accuracies` of DPO's logs. Exactly 0 at the reference."""
    return (precise(chosen_rewards) > precise(rejected_rewards)).to(torch.float64).mean()


def margins(
    policy_chosen: Float[Tensor, "n"],
    policy_rejected: Float[Tensor, "n"],
    ref_chosen: Float[Tensor, "n"],
    ref_rejected: Float[Tensor, "n"],
) -> Float[Tensor, "n"]:
    """h = (log pi(y_w) - log pi(y_l)) - (log pi_ref(y_w) - log pi_ref(y_l)), nats; beta h is the reward margin."""
    return (precise(policy_chosen) - precise(policy_rejected)) - (precise(ref_chosen) - precise(ref_rejected))


def difficulty(ref_chosen: Float[Tensor, "n"], ref_rejected: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """c = log pi_ref(y_l) - log pi_ref(y_w), nats: how far the reference is from ranking the pair correctly.

    At most 0: it is ranked correctly already. Sort data by c to find hard pairs before any training.

    References:
        arXiv:2405.19534, theorem 4.1.
    """
    return precise(ref_rejected) - precise(ref_chosen)


def loss_for_correct_ranking(
    ref_chosen: Float[Tensor, "n"], ref_rejected: Float[Tensor, "n"], *, beta: float
) -> Float[Tensor, "n"]:
    """The DPO loss at or below which a pair is ranked correctly, and above which it is not: -log sigma(beta c).

    References:
        arXiv:2405.19534, theorem 4.1.
    """
    _check_beta(beta)
    return softplus(-beta * difficulty(ref_chosen, ref_rejected))


def ideally_ranked(
    ref_chosen: Float[Tensor, "n"],
    ref_rejected: Float[Tensor, "n"],
    *,
    beta: float,
    annotator_rate: float | Float[Tensor, "n"] = 1.0,
) -> Bool[Tensor, "n"]:
    """Whether the optimum of DPO itself ranks a pair correctly.

        log pi*(y_w) - log pi*(y_l) = log pi_ref(y_w) - log pi_ref(y_l) + (1 / beta) log( alpha / (1 - alpha) )  >  0

    Args:
        ref_chosen: log-probabilities of the reference, nats; averages for the length-normalised form.
        ref_rejected: the same of the rejected answers.
        beta: of the training.
        annotator_rate: alpha, share of annotators who prefer y_w; one number, or one per pair. 0 and 1 are moved by
            `SURE`.

    References:
        arXiv:2405.19534, idealised ranking accuracy.
    """
    _check_beta(beta)
    reference = precise(ref_chosen) - precise(ref_rejected)
    rate = torch.as_tensor(annotator_rate, dtype=reference.dtype, device=reference.device)
    if bool(((rate < 0) | (rate > 1)).any()):
        raise ValueError(f"`annotator_rate` is a share in [0, 1], found {float(rate.min())} to {float(rate.max())}.")
    rate = torch.where(rate >= 1, 1 - SURE, torch.where(rate <= 0, SURE, rate))
    return reference + torch.logit(rate) / beta > 0


def idealised_ranking_accuracy(
    ref_chosen: Float[Tensor, "n"],
    ref_rejected: Float[Tensor, "n"],
    *,
    betas: Sequence[float] = BETAS,
    annotator_rate: float | Float[Tensor, "n"] = 1.0,
) -> Idealised:
    """Share of pairs that the optimum of DPO ranks correctly: the least, the median and the most over betas.

    Give the training's own beta alone if it is known: the three are then equal.
    """
    if not betas:
        raise ValueError("`betas` is empty. Give the beta of the training, or leave the default.")
    shares = torch.stack(
        [
            ideally_ranked(ref_chosen, ref_rejected, beta=beta, annotator_rate=annotator_rate).to(torch.float64).mean()
            for beta in betas
        ]
    )
    # quantile, since the median of an even number would be its lower neighbour
    return Idealised(shares.min(), shares.quantile(0.5), shares.max())


def alignment_gap(
    policy_chosen: Float[Tensor, "n"],
    policy_rejected: Float[Tensor, "n"],
    ref_chosen: Float[Tensor, "n"],
    ref_rejected: Float[Tensor, "n"],
    *,
    betas: Sequence[float] = BETAS,
    annotator_rate: float | Float[Tensor, "n"] = 1.0,
) -> Float[Tensor, ""]:
    """Idealised (median over betas) minus actual ranking accuracy, in [-1, 1]; the paper finds 0.19 to 0.59."""
    ideal = idealised_ranking_accuracy(ref_chosen, ref_rejected, betas=betas, annotator_rate=annotator_rate)
    return ideal.median - ranking_accuracy(policy_chosen, policy_rejected)


def both_falling(
    policy_chosen: Float[Tensor, "n"],
    policy_rejected: Float[Tensor, "n"],
    ref_chosen: Float[Tensor, "n"],
    ref_rejected: Float[Tensor, "n"],
) -> Falling:
    """Whether chosen *and* rejected answers have become less likely: the margin alone hides it.

    To a degree it is expected of every loss of the difference (likelihood displacement); together with falling quality
    it asks for a supervised term, a smaller learning rate or a larger beta.
    """
    chosen, rejected = precise(policy_chosen) - precise(ref_chosen), precise(policy_rejected) - precise(ref_rejected)
    hidden = (chosen < 0) & (rejected < 0) & (chosen > rejected)
    return Falling(
        chosen.mean(), rejected.mean(), hidden.to(torch.float64).mean(), (chosen.mean() < 0) & (rejected.mean() < 0)
    )


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ValueError(f"`beta` must be above 0, found {beta}.")
