"""Prompts in buckets (by topic, length, difficulty): draw more from those that have something to teach.

The payoff of a bucket is any number in [0, 1] that says how much was learnt from a prompt of it: the share of mixed
groups, or 4 p (1 - p) of its success rate.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def ucb(
    payoffs: Float[Tensor, "b"], counts: Int[Tensor, "b"], budget: int, *, exploration: float = 1.0
) -> Int[Tensor, "b"]:
    """Draws per bucket by upper confidence bound, one at a time; the mean payoff is held fixed meanwhile.

        index_b = mean_b + c sqrt( 2 log(N) / n_b ),     N = sum_b n_b;     a bucket never drawn comes first

    Args:
        payoffs: mean payoff of each bucket so far, in [0, 1]; NaN where never drawn.
        counts: how often each was drawn.
        budget: draws to hand out.
        exploration: c >= 0; 0 is greedy.

    Returns:
        int64, summing to the budget. Ties go to the first bucket.

    References:
        Auer, Cesa-Bianchi, Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", 2002 (UCB1).
    """
    _check(payoffs, counts, budget)
    if exploration < 0:
        raise ValueError(f"`exploration` must not be negative, found {exploration}.")
    numbers, means = counts.double(), payoffs.double().nan_to_num(nan=0.0)
    drawn = torch.zeros_like(counts)
    for _ in range(budget):
        width = (2 * math.log(max(float(numbers.sum()), 1.0)) / numbers.clamp(min=1.0)).sqrt()
        index = torch.where(numbers == 0, float("inf"), means + exploration * width)
        best = int(index.argmax())
        numbers[best] += 1
        drawn[best] += 1
    return drawn


def thompson(
    payoffs: Float[Tensor, "b"],
    counts: Int[Tensor, "b"],
    budget: int,
    generator: torch.Generator,
    *,
    prior: tuple[float, float] = (1.0, 1.0),
) -> Int[Tensor, "b"]:
    """Draws per bucket by Thompson sampling: each goes to the best of one draw from every bucket's posterior.

        theta_b ~ Beta(a + n_b mean_b,  b + n_b (1 - mean_b))

    Args:
        payoffs: mean payoff of each bucket so far, in [0, 1]; NaN where never drawn.
        counts: how often each was drawn.
        budget: draws to hand out.
        generator: of the draws; the same generator state gives the same result.
        prior: (a, b) > 0.

    Returns:
        int64, summing to the budget.

    References:
        Chapelle and Li, "An Empirical Evaluation of Thompson Sampling", 2011.
    """
    _check(payoffs, counts, budget)
    if min(prior) <= 0:
        raise ValueError(f"`prior` must hold two numbers above 0, found {prior}.")
    means, numbers = payoffs.double().nan_to_num(nan=0.0), counts.double()
    wins, losses = prior[0] + numbers * means, prior[1] + numbers * (1 - means)
    # Beta draws of torch take no generator; numpy's do, seeded by this one.
    seed = int(torch.randint(2**62, (1,), generator=generator))
    draws = np.random.default_rng(seed).beta(wins.numpy(), losses.numpy(), size=(budget, len(means)))
    return torch.bincount(torch.from_numpy(draws).argmax(dim=1), minlength=len(means))


def _check(payoffs: Tensor, counts: Tensor, budget: int) -> None:
    if payoffs.shape != counts.shape or len(counts) == 0:
        raise ValueError(f"expected one payoff and one count per bucket, found {len(payoffs)} and {len(counts)}.")
    known = payoffs[~payoffs.isnan()]
    if ((known < 0) | (known > 1)).any():
        raise ValueError(f"payoffs must be between 0 and 1, found {known.min():g} to {known.max():g}.")
    if budget < 0 or (counts < 0).any():
        raise ValueError("`budget` and `counts` must not be negative.")
