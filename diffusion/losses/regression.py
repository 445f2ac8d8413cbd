"""Regression on pictures: the pre-training loss, each picture with a weight.

References:
    Peters and Schaal, Reinforcement Learning by Reward-Weighted Regression, ICML 2007.
    Lee et al., Aligning Text-to-Image Models using Human Feedback, arXiv:2302.12192 (the bare reward as weight).
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from align.objectives import exponential_weights


def raw_weights(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], temperature: float) -> Float[Tensor, "n"]:
    """The bare scores; 0 where unscored. Negative ones push away. Groups and temperature have no part in it."""
    return scores.nan_to_num(0.0)


REWARD_WEIGHTS = {"exponential": exponential_weights, "raw": raw_weights}


def weighted_regression(error: Float[Tensor, "t b"], weights: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """w_i times the mean over times of its matching error; one number a sample.

    Args:
        error: matching errors, with gradient.
        weights: one a sample; constants.
    """
    return weights.detach().to(error) * error.mean(0)
