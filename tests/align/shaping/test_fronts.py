"""Comparing fronts: by hand, and intervals that hold what they should."""

import math

import numpy as np
import pytest
import torch

from align.shaping import fronts

FRONT = [[2.0, 0.0], [0.0, 2.0]]


def test_distances_by_hand():
    """Reference (2,0) (0,2). From (1,0): short by 1 and by 2 -> IGD+ 1.5, epsilon 2. From the front itself: 0."""
    assert fronts.igd_plus([[1.0, 0.0]], FRONT) == 1.5
    assert fronts.additive_epsilon([[1.0, 0.0]], FRONT) == 2.0
    assert fronts.igd_plus(FRONT, FRONT) == fronts.additive_epsilon(FRONT, FRONT) == 0.0
    assert fronts.igd_plus([[3.0, 3.0]], FRONT) == 0.0
    assert fronts.additive_epsilon([[3.0, 3.0]], FRONT) == -1.0


def test_expected_utility_by_hand():
    """Users (1,0) (1/2,1/2) (0,1) of the front: 2, 1, 2."""
    assert fronts.expected_utility(FRONT, divisions=2) == pytest.approx(5 / 3)
    assert fronts.expected_utility(FRONT, torch.tensor([[0.25, 0.75]])) == 1.5


def test_evenness_by_hand():
    """1 2 3 and a gap: total 6, worst 1, 20 % quantile 1.4, gini = (2*0 + 2*(1+2+1)) / (2*9*2) = 8/36."""
    found = fronts.evenness(torch.tensor([3.0, 1.0, 2.0, math.nan]))
    assert found == pytest.approx({"total": 6.0, "worst": 1.0, "p20": 1.4, "gini": 2 / 9})
    assert fronts.evenness(torch.full((5,), 2.0))["gini"] == 0.0
    assert fronts.evenness(torch.zeros(2))["gini"] == 0.0
    with pytest.raises(ValueError, match="0 or more, found -1"):
        fronts.evenness(torch.tensor([-1.0, 1.0]))
    with pytest.raises(ValueError, match="none of the utilities"):
        fronts.evenness(torch.tensor([math.nan]))


def test_bootstrap_of_a_front():
    """Two systems, 40 prompts around (2, 1) and (1, 2): HV about 3; equal prompts give an interval without width."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(2, 40, 2, generator=generator)
    scores = torch.tensor([[[2.0, 1.0]], [[1.0, 2.0]]]) + noise
    found = fronts.bootstrap_hypervolume(scores, [0.0, 0.0], resamples=200)
    again = fronts.bootstrap_hypervolume(scores, [0.0, 0.0], resamples=200)
    assert found == again
    assert found.low < found.mean < found.high
    assert found.low < 3.0 < found.high
    assert found.n == 40
    still = fronts.bootstrap_hypervolume(scores[:, :1].expand(2, 5, 2), [0.0, 0.0], resamples=20)
    assert still.low == pytest.approx(still.mean)
    assert still.high == pytest.approx(still.mean)


def test_bootstrap_mistakes():
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, found 2"):
        fronts.bootstrap_hypervolume(torch.zeros(1, 2, 2), [0.0, 0.0], 2.0)
    with pytest.raises(ValueError, match="a score for every prompt"):
        fronts.bootstrap_hypervolume(torch.full((1, 2, 2), math.nan), [0.0, 0.0])


def test_resamples_are_the_same_prompts_for_all_systems():
    """The second system is the first + 1 on each prompt: so are all its means. Against a loop over the same draws."""
    scores = torch.arange(12.0).reshape(1, 6, 2).square()
    both = torch.cat([scores, scores + 1])
    found = fronts.drawn_means(both, resamples=7, seed=3)
    torch.testing.assert_close(found[:, 1], found[:, 0] + 1)
    generator = np.random.default_rng(3)
    for place in range(7):
        rows = generator.integers(6, size=6)
        torch.testing.assert_close(found[place], both[:, rows].double().mean(dim=1))
    torch.testing.assert_close(fronts.drawn_means(both, resamples=7, seed=3, block=2), found)


def test_percentiles_by_hand():
    """0 .. 40: the 2.5 % quantile lies at place 1, the 97.5 % quantile at place 39."""
    assert fronts.percentile_interval(5.0, np.arange(41.0), 8) == pytest.approx((5.0, 1.0, 39.0, 8))
