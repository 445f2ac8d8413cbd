"""Knapsack RL: by hand, against dynamic programming and brute force, and what happens at the edges."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.allocation import knapsack, mixed_value, rollouts_needed, success_rates

NAN = math.nan


def rates(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_values_by_hand():
    """V(8, 0.5) = (1 - 2/256) / 8 = 0.124023."""
    n, p = torch.tensor([8, 8, 8, 32]), rates(0.5, 0.25, 1 / 3, 0.05)
    assert mixed_value(n, p).tolist() == pytest.approx([0.124023, 0.126544, 0.142345, 0.036384], abs=1e-6)


def test_optimum_by_hand():
    """The checked example: (11, 12, 7, 2) is worth 0.280295, eight each 0.270882."""
    p = rates(0.05, 0.25, 0.5, 0.9)
    found = knapsack(p, 32)
    assert found.tolist() == [11, 12, 7, 2]
    assert mixed_value(found, p).sum().item() == pytest.approx(0.280295, abs=1e-6)
    assert mixed_value(torch.full((4,), 8), p).sum().item() == pytest.approx(0.270882, abs=1e-6)


def test_better_than_the_released_table():
    """p = (0.05, 0.9, 0.92, 0.95), B = 16: released (9, 3, 2, 2), optimum (10, 2, 2, 2)."""
    p = rates(0.05, 0.9, 0.92, 0.95)
    assert knapsack(p, 16).tolist() == [10, 2, 2, 2]
    assert mixed_value(torch.tensor([9, 3, 2, 2]), p).sum().item() == pytest.approx(0.02021, abs=1e-5)
    assert mixed_value(torch.tensor([10, 2, 2, 2]), p).sum().item() == pytest.approx(0.02082, abs=1e-5)


instances = st.lists(st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.75, 0.9]), min_size=1, max_size=4)


@given(p=instances, extra=st.integers(0, 12), high=st.integers(2, 8))
def test_greedy_equals_the_table_and_brute_force(p, extra, high):
    budget = min(2 * len(p) + extra, high * len(p))
    greedy = knapsack(rates(*p), budget, max_rollouts=high)
    table = knapsack(rates(*p), budget, max_rollouts=high, method="exact")
    best = max(
        sum(mixed_value(torch.tensor(counts), rates(*p)).tolist())
        for counts in itertools.product(range(2, high + 1), repeat=len(p))
        if sum(counts) == budget
    )
    for found in (greedy, table):
        assert int(found.sum()) == budget
        assert ((found >= 2) & (found <= high)).all()
        assert mixed_value(found, rates(*p)).sum().item() == pytest.approx(best, abs=1e-12)


def test_unknown_solved_and_hopeless_prompts():
    """24 rollouts, 4 prompts: unknown gets 6, solved and hopeless 2 each, the rest 14 goes to the one in between."""
    assert knapsack(rates(NAN, 1.0, 0.0, 0.5), 24).tolist() == [6, 2, 2, 14]


def test_no_prompt_in_between():
    """The rest goes to the hopeless; without those everybody gets the same."""
    assert knapsack(rates(0.0, 1.0, 0.0), 13).tolist() == [6, 2, 5]
    assert knapsack(rates(1.0, NAN, 1.0), 13).tolist() == [5, 4, 4]
    assert knapsack(rates(NAN, NAN), 16).tolist() == [8, 8]


def test_the_cap_holds_and_the_rest_goes_on():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = knapsack(rates(0.5, 0.0, 1.0), 20, max_rollouts=6)
    assert found.tolist() == [6, 6, 2]
    assert "6 of 20 rollouts are not spent" in str(caught[0].message)


def test_fallback_hands_a_surplus_to_the_hopeless():
    """p = 0.5 needs floor(ln 0.1 / ln 0.5) = 3 more; of 16 - 2 - 2 = 12 the other 9 go to the hopeless prompt."""
    assert rollouts_needed(rates(0.5, 0.9), 128).tolist() == [3.0, 21.0]
    assert rollouts_needed(rates(0.5), 128, "expectation").tolist() == [3.0]
    assert knapsack(rates(0.5, 0.0), 16, fallback="confidence").tolist() == [5, 11]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knapsack(rates(), 4), "there is no prompt"),
        (lambda: knapsack(rates(0.5, 1.5), 4), "must be between 0 and 1"),
        (lambda: knapsack(rates(0.5), 0), "`budget` must be at least 1"),
        (lambda: knapsack(rates(0.5, 0.5), 3), "a budget of 3 rollouts is too small: 2 prompts need 4"),
        (lambda: knapsack(rates(0.5), 4, min_rollouts=9, max_rollouts=3), "`min_rollouts` <= `max_rollouts`"),
        (lambda: rollouts_needed(rates(0.5), 4, "guess"), "`fallback` must be none, confidence or expectation"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_success_rates_by_hand():
    """Last epoch of 16: 4 right. Last epoch of 4 only: the last 16 of both, 10 right. Seven in all: unknown."""
    full = [[1.0] * 16, [1.0] * 4 + [-1.0] * 12]
    short = [[1.0] * 8 + [0.0] * 8, [1.0] * 4]
    found = success_rates([full, short, [[1.0] * 7]])
    assert found[0] == 0.25
    assert found[1] == (4 + 4) / 16
    assert found[2].isnan()


def test_prior_and_gaps():
    """0 of 16 with Beta(1, 1): 1 / 18. NaN is no outcome."""
    assert success_rates([[[0.0] * 16]], prior=1.0).tolist() == pytest.approx([1 / 18])
    assert success_rates([[[1.0] * 8 + [NAN] * 8]]).tolist() == [1.0]
    assert success_rates([[]]).isnan().all()
    with pytest.raises(ValueError, match=r"outcomes must be -1, 0 or 1, found 0.5"):
        success_rates([[[0.5]]])
