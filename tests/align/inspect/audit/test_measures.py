"""Numbers about rewards: by hand, against slow loops and scipy, and what they must ignore."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from align.inspect.audit.measures import (
    conflict,
    correlation,
    noise,
    rank_correlation,
    saturation,
    spread_within,
    variance_inflation,
)

NAN = math.nan
ONE = torch.zeros(40, dtype=torch.int64)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_correlation_by_hand():
    """Prompt 5: d = -+1/2, e = +-1/2; prompt 9: d = -+1, e = -+2. r = (-1/2 + 4) / sqrt(2.5 * 8.5) = 0.7593."""
    x, y = torch.tensor([1.0, 0.0, 2.0, 2.0]), torch.tensor([2.0, 0.0, 1.0, 4.0])
    assert correlation(x, y, torch.tensor([5, 9, 5, 9])) == pytest.approx(3.5 / math.sqrt(21.25))


def test_correlation_between_prompts_is_none_within():
    """Both are high on the second prompt, and go against each other on each."""
    x, y = torch.tensor([0.0, 1.0, 10.0, 11.0]), torch.tensor([1.0, 0.0, 11.0, 10.0])
    assert correlation(x, y, torch.tensor([0, 0, 1, 1])) == pytest.approx(-1)
    assert correlation(x, y, torch.zeros(4, dtype=torch.int64)) > 0.9


@given(seed=st.integers(0, 30))
def test_of_one_group_they_are_those_of_scipy(seed):
    x, y = draw(seed, 40).round(decimals=1), draw(seed + 99, 40)
    y = (0.5 * x + y).round(decimals=1)  # rounded: there are ties
    assert correlation(x, y, ONE) == pytest.approx(stats.pearsonr(x, y)[0])
    assert rank_correlation(x, y, ONE) == pytest.approx(stats.spearmanr(x, y)[0])


@given(seed=st.integers(0, 30), scale=st.floats(0.1, 10))
def test_units_and_levels_of_prompts_do_not_matter(seed, scale):
    ids, (x, y) = torch.arange(40) % 8, draw(seed, 2, 40)
    level = draw(seed + 1, 8)[ids] * 5
    assert correlation(scale * x + level, y, ids) == pytest.approx(correlation(x, y, ids), abs=1e-9)
    assert rank_correlation(scale * x + level, y, ids) == pytest.approx(rank_correlation(x, y, ids), abs=1e-9)
    assert conflict(scale * x + level, y, ids) == conflict(x, y, ids)


def test_a_reward_that_never_differs_has_no_correlation():
    constant, ids = torch.tensor([0.35, 0.35, 0.7, 0.7]), torch.tensor([0, 0, 1, 1])
    assert math.isnan(correlation(constant, torch.arange(4.0), ids))
    assert math.isnan(correlation(constant[:0], constant[:0], ids[:0]))


def test_conflict_by_hand():
    """Three samples of a prompt: 1 < 2 < 3 against 3, 1, 1. Pairs (1,2) and (1,3) disagree, (2,3) is a tie of y.

    The second prompt has one pair, which agrees; a row without a score takes part in no pair.
    """
    x = torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, 5.0])
    y = torch.tensor([3.0, 1.0, 1.0, 0.0, 1.0, NAN])
    assert conflict(x, y, torch.tensor([0, 0, 0, 1, 1, 1])) == (pytest.approx(2 / 3), 3, 4)


@given(seed=st.integers(0, 20))
def test_conflict_against_a_loop(seed):
    ids, (x, y) = torch.arange(40) % 7, draw(seed, 2, 40).round(decimals=0)
    pairs = [(i, j) for i, j in combinations(range(40), 2) if ids[i] == ids[j]]
    products = [float((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs]
    decided = sum(product != 0 for product in products)
    expected = sum(product < 0 for product in products) / decided
    assert conflict(x, y, ids) == (pytest.approx(expected), decided, len(pairs))


def test_conflict_of_a_large_group_is_counted_in_blocks():
    x = torch.arange(1200.0)
    assert conflict(x, -x, torch.zeros(1200, dtype=torch.int64)) == (1.0, 1200 * 1199 // 2, 1200 * 1199 // 2)


def test_noise_by_hand():
    """Differences 0.2, -0.2, 0, 0: sd = sqrt(0.02 / 2) = 0.1. Within prompts: squares 2 * 0.5 + 2 * 0.5 over 2: 1."""
    first, again = torch.tensor([0.0, 1.4142136, 5.0, 6.4142136]), torch.tensor([0.2, 1.2142136, 5.0, 6.4142136])
    found = noise(first.double(), again.double(), torch.tensor([0, 0, 1, 1]))
    assert found == pytest.approx((0.1, 1.0, 0.01), abs=1e-6)


def test_noise_of_a_known_scorer():
    """Spread 1 of the samples, noise 0.5 of each scoring: a quarter over one and a quarter of the variance, 0.2."""
    ids, truth = torch.arange(4000) % 500, draw(0, 4000)
    found = noise(truth + 0.5 * draw(1, 4000), truth + 0.5 * draw(2, 4000), ids)
    assert found.sd == pytest.approx(0.5, rel=0.05)
    assert found.share == pytest.approx(0.2, rel=0.1)


def test_spread_needs_two_scores_of_a_prompt():
    assert math.isnan(spread_within(torch.tensor([1.0, 2.0, NAN]), torch.tensor([0, 1, 1])))
    assert spread_within(torch.tensor([1.0, 3.0, 7.0]), torch.tensor([0, 0, 1])) == pytest.approx(math.sqrt(2))


def test_saturation_by_hand():
    """Scores 0 0 | 1 1 | 1 0.5 | - 1: of 7 scored two at the bottom, four at the top; prompts 0 and 1 of 3 constant."""
    values = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.5, NAN, 1.0])
    found = saturation(values, torch.arange(8) // 2)
    assert found == pytest.approx((2 / 7, 4 / 7, 2 / 3, 1 / 8))
    assert math.isnan(saturation(values[6:7], torch.tensor([0])).at_max)


def test_inflation_by_hand():
    """Of one prompt: x = (1, -1, 0, 0), y = (1, 0, -1, 0) have r = 1/2, so R^2 = 1/4 and VIF = 4/3 for both.

    z = (0, 0, 0, 0) never differs.
    """
    values = torch.tensor([[1.0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 0]])
    found = variance_inflation(values, torch.zeros(4, dtype=torch.int64))
    assert found[:2].tolist() == pytest.approx([4 / 3, 4 / 3])
    assert found[2].isnan()


def test_inflation_is_the_diagonal_of_the_inverse_correlation():
    ids, values = torch.arange(60) % 10, draw(3, 60, 4)
    values[:, 3] += values[:, 0] + 0.5 * values[:, 1]
    rows = torch.tensor(
        [[correlation(values[:, a], values[:, b], ids) for b in range(4)] for a in range(4)], dtype=torch.float64
    )
    expected = torch.linalg.inv(rows).diagonal()
    torch.testing.assert_close(variance_inflation(values, ids), expected, rtol=1e-9, atol=0)


def test_a_sum_of_the_others_is_counted_twice_without_end():
    values = draw(4, 30, 3)
    values[:, 2] = values[:, 0] - 2 * values[:, 1]
    assert variance_inflation(values, torch.arange(30) % 5).tolist() == [math.inf] * 3
    assert variance_inflation(values[:4], torch.arange(4) % 2).isnan().all()
