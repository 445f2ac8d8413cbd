"""Allocation by exhaustive search: all ways to deal out a small budget, and XRPO's priorities one at a time."""

import itertools
import math

import pytest
import torch

from align.allocation import knapsack, xrpo


def mixed(n, p):
    """Chance of a mixed group times p (1 - p)^2."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", ["greedy", "exact"])
def test_knapsack_finds_the_best_of_all_allocations(seed, method):
    generator = torch.Generator().manual_seed(seed)
    rates = 0.02 + 0.96 * torch.rand(4, generator=generator).double()
    budget, low, high = 8 + 2 * (seed % 5), 2, 7
    every = (counts for counts in itertools.product(range(low, high + 1), repeat=4) if sum(counts) == budget)
    best = max(sum(mixed(n, p) for n, p in zip(counts, rates.tolist(), strict=True)) for counts in every)
    counts = knapsack(rates, budget, min_rollouts=low, max_rollouts=high, method=method)
    assert counts.dtype == torch.int64
    assert int(counts.sum()) == budget
    assert int(counts.min()) >= low
    assert int(counts.max()) <= high
    worth = sum(mixed(n, p) for n, p in zip(counts.tolist(), rates.tolist(), strict=True))
    assert worth == pytest.approx(best, rel=1e-9)


STUDENT = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 5: 2.570582, 6: 2.446912, 7: 2.364624, 8: 2.306004}
"""97.5 % quantiles of Student's t by degrees of freedom, from any table."""


@pytest.mark.parametrize("seed", range(8))
def test_xrpo_by_priorities(seed):
    """t s / sqrt(n) - t' s / sqrt(n + 1) + sqrt(log(1 + T) / n), the highest priority takes one, ties the first."""
    generator = torch.Generator().manual_seed(seed)
    stds = torch.rand(4, generator=generator).double()
    counts = torch.randint(2, 5, (4,), generator=generator)
    budget, expected = 4, counts.tolist()
    total = sum(expected) + budget
    for _ in range(budget):
        priorities = []
        for s, n in zip(stds.tolist(), expected, strict=True):
            gain = STUDENT[n - 1] * s / math.sqrt(n) - STUDENT[n] * s / math.sqrt(n + 1)
            priorities.append(gain + math.sqrt(math.log(1 + total) / n))
        expected[priorities.index(max(priorities))] += 1
    more = xrpo(stds, counts, budget)
    assert more.tolist() == [now - before for now, before in zip(expected, counts.tolist(), strict=True)]
