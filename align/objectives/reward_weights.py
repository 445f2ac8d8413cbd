"""Weights of reward-weighted regression: samples are imitated, the better the more, each against its own group.

References:
    Peters and Schaal, Reinforcement Learning by Reward-Weighted Regression, ICML 2007.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_max, group_mean


def exponential_weights(
    scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], temperature: float
) -> Float[Tensor, "n"]:
    """w_i = exp(r_i / temperature) / mean over its group of exp(r / temperature); 0 where unscored.

    That is the softmax over the group times its number of scored samples. The mean of 1 keeps the size of an update
    apart from the temperature. Equal scores give weights of exactly 1.

    Args:
        scores: NaN is left out.
        group_ids: equal ids answer the same prompt.
        temperature: > 0, in the unit of the scores.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, found {temperature}")
    powers = ((scores.double() - group_max(scores, group_ids)) / temperature).exp()
    return (powers / group_mean(powers, group_ids)).nan_to_num(0.0).to(scores)


def effective_share(weights: Float[Tensor, "n"]) -> float:
    """(sum w)^2 / (n sum w^2): 1 if all samples count alike, 1/n if one counts alone; NaN if none does."""
    wide = weights.double()
    squares = float((wide**2).sum())
    return float(wide.sum()) ** 2 / (len(wide) * squares) if squares else float("nan")
