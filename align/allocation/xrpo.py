"""XRPO's rollout allocator: sample on where another rollout narrows the estimate most. arXiv:2510.06672.

Reconstruction from third-party restatements; the official code could not be read. Assumptions: the bonus has a root
(one source has none), alpha = 0.05, lambda = 1, prompts with fewer than two rollouts come first.

    half-width  h_q(n) = t_{1 - alpha/2, n-1} s_q / sqrt(n)
    gain        D_q = h_q(n) - h_q(n + 1)              s_q held fixed
    bonus       phi_q = lambda sqrt( log(1 + T) / n )
    priority    D_q + phi_q
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def xrpo(
    stds: Float[Tensor, "p"],
    counts: Int[Tensor, "p"],
    budget: int,
    *,
    alpha: float = 0.05,
    bonus: float = 1.0,
    total: int | None = None,
    max_rollouts: int | None = None,
) -> Int[Tensor, "p"]:
    """Further rollouts per prompt, one at a time to the highest priority.

    Call it once per round, with the standard deviations of all rollouts so far; s_q is held fixed within the round.

    Args:
        stds: s_q, unbiased standard deviation of each prompt's rewards so far; NaN counts as 0.
        counts: n_q, rollouts of each prompt so far. Below 2 a prompt has no half-width and comes first, in order.
        budget: rollouts of this round.
        alpha: 1 - coverage of the interval, in (0, 1).
        bonus: lambda >= 0.
        total: T, all rollouts including this round; None = the sum of `counts` + `budget`.
        max_rollouts: cap on n_q; None = none.

    Returns:
        int64, summing to the budget.

    Raises:
        ValueError: lengths that disagree, negative numbers, or a budget above what the cap leaves.
    """
    if stds.shape != counts.shape or len(counts) == 0:
        raise ValueError(f"expected one std and one count per prompt, found {len(stds)} and {len(counts)}.")
    if budget < 0 or (counts < 0).any() or (stds < 0).any() or not 0 < alpha < 1 or bonus < 0:
        raise ValueError("`budget`, `counts`, `stds` and `bonus` must not be negative, `alpha` between 0 and 1.")
    cap = math.inf if max_rollouts is None else max_rollouts
    room = sum(max(0, cap - n) for n in counts.tolist())
    if room < budget:
        raise ValueError(f"{budget} rollouts do not fit below the cap of {max_rollouts}: room for {int(room)}.")
    everything = int(counts.sum()) + budget if total is None else total
    spread = stds.double().nan_to_num(nan=0.0).tolist()
    numbers = counts.tolist()
    quantiles = _quantiles(max(numbers) + budget + 1, alpha)

    def priority(place: int) -> float:
        n = numbers[place]
        if n < 2:
            return math.inf
        return _gain(spread[place], n, quantiles) + bonus * math.sqrt(math.log1p(everything) / n)

    heap = [(-priority(place), place) for place in range(len(numbers)) if numbers[place] < cap]
    heapq.heapify(heap)
    for _ in range(budget):
        _, place = heapq.heappop(heap)
        numbers[place] += 1
        if numbers[place] < cap:
            heapq.heappush(heap, (-priority(place), place))
    return torch.tensor(numbers, dtype=torch.int64) - counts


def _gain(std: float, n: int, quantiles: Sequence[float]) -> float:
    """h(n) - h(n + 1)."""
    return std * (quantiles[n - 1] / math.sqrt(n) - quantiles[n] / math.sqrt(n + 1))


def _quantiles(most: int, alpha: float) -> list[float]:
    """t_{1 - alpha/2} by degrees of freedom 0 .. most; entry 0 is not used."""
    from scipy.stats import t

    return [math.nan, *t.ppf(1 - alpha / 2, range(1, most + 1)).tolist()]
