"""XRPO's allocator: by hand, properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.allocation import xrpo
from align.allocation.xrpo import _gain, _quantiles


def test_quantiles_and_gain_by_hand():
    """t at 1, 3, 7 degrees of freedom; gain of s = 1 from 4 to 5: 3.18245 / 2 - 2.77645 / sqrt 5 = 0.349565."""
    t = _quantiles(7, 0.05)
    assert [t[1], t[3], t[7]] == pytest.approx([12.706, 3.182, 2.365], abs=5e-4)
    assert _gain(1.0, 4, t) == pytest.approx(3.182446 / 2 - 2.776445 / math.sqrt(5), abs=1e-6)


def test_by_hand():
    """Two prompts with 4 rollouts, spreads 1 and 0; lambda 0: all go where the spread is, while the gain is above 0."""
    found = xrpo(torch.tensor([1.0, 0.0]), torch.tensor([4, 4]), 3, bonus=0.0)
    assert found.tolist() == [3, 0]
    assert found.dtype == torch.int64


def test_prompts_without_a_half_width_come_first():
    found = xrpo(torch.tensor([math.nan, 5.0, 0.0]), torch.tensor([0, 4, 1]), 3)
    assert found.tolist() == [2, 0, 1]


def test_without_a_spread_the_bonus_evens_the_counts_out():
    assert xrpo(torch.zeros(3), torch.tensor([8, 2, 2]), 6).tolist() == [0, 3, 3]


@given(
    prompts=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 6)), min_size=1, max_size=5), budget=st.integers(0, 12)
)
def test_sums_to_the_budget_below_the_cap(prompts, budget):
    stds, counts = torch.tensor([s for s, _ in prompts]), torch.tensor([n for _, n in prompts])
    found = xrpo(stds, counts, budget, max_rollouts=20)
    assert int(found.sum()) == budget
    assert (found >= 0).all()
    assert (counts + found <= 20).all()


@given(budget=st.integers(1, 8))
def test_priority_by_exhaustive_search(budget):
    """One at a time to the largest h(n) - h(n + 1) + sqrt(log(1 + T) / n), written out."""
    from scipy.stats import t

    stds, counts = [0.5, 1.0, 0.2], [3, 4, 2]
    total, numbers = sum(counts) + budget, list(counts)
    for _ in range(budget):
        half = [
            [t.ppf(0.975, m - 1) * s / math.sqrt(m) for m in (n, n + 1)] for s, n in zip(stds, numbers, strict=True)
        ]
        priority = [h[0] - h[1] + math.sqrt(math.log(1 + total) / n) for h, n in zip(half, numbers, strict=True)]
        numbers[priority.index(max(priority))] += 1
    expected = [n - m for n, m in zip(numbers, counts, strict=True)]
    assert xrpo(torch.tensor(stds), torch.tensor(counts), budget).tolist() == expected


def test_mistakes():
    with pytest.raises(ValueError, match="do not fit below the cap of 4: room for 1"):
        xrpo(torch.ones(2), torch.tensor([4, 3]), 2, max_rollouts=4)
    with pytest.raises(ValueError, match="must not be negative"):
        xrpo(torch.ones(1), torch.tensor([1]), -1)
    with pytest.raises(ValueError, match="one std and one count per prompt, found 0 and 0"):
        xrpo(torch.ones(0), torch.zeros(0, dtype=torch.int64), 1)
