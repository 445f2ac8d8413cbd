"""Success rates of prompts from recorded outcomes; what Knapsack RL is fed with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

OUTCOMES = (-1.0, 0.0, 1.0)


def success_rates(
    histories: Sequence[Sequence[Sequence[float]]],
    *,
    window: int = 16,
    min_observations: int = 8,
    prior: float = 0.0,
) -> Float[Tensor, "p"]:
    """Share of successes of each prompt.

        the last epoch's rollouts; if they are fewer than `window`, the last `window` rollouts of all epochs

    Args:
        histories: per prompt, per epoch, the outcomes: 1 right, 0 or -1 wrong, NaN not scored (left out).
        window: rollouts that make an epoch's rate trustworthy.
        min_observations: with fewer scored rollouts in all, the rate is unknown.
        prior: pseudo-counts of both a success and a failure (1 = Beta(1, 1)), so that 0 of 16 is not taken for
            impossible. 0 = none, as released.

    Returns:
        float64 in [0, 1]; NaN = unknown.

    Raises:
        ValueError: an outcome other than -1, 0, 1.

    References:
        Knapsack RL, arXiv:2509.25849, released code, "robust" mode. The prior is ours.
    """
    return torch.tensor([_rate(history, window, min_observations, prior) for history in histories], dtype=torch.float64)


def _rate(epochs: Sequence[Sequence[float]], window: int, min_observations: int, prior: float) -> float:
    scored = [[value for value in epoch if value == value] for epoch in epochs]
    everything = [value for epoch in scored for value in epoch]
    wrong = [value for value in everything if value not in OUTCOMES]
    if wrong:
        raise ValueError(f"outcomes must be -1, 0 or 1, found {wrong[0]}. Turn scores into successes (a threshold).")
    if len(everything) < max(min_observations, 1):
        return float("nan")
    counted = scored[-1] if len(scored[-1]) >= window else everything[-window:]
    return (sum(value == 1 for value in counted) + prior) / (len(counted) + 2 * prior)
