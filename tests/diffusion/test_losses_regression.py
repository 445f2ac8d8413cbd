"""Weights of reward-weighted regression, and its loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.losses import exponential_weights, raw_weights, weighted_regression


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def ids(*values):
    return torch.tensor(values)


def test_exponential_weights_by_hand():
    """Group 7 scores 0 and ln 3 at temperature 1: powers 1 and 3, mean 2, weights 1/2 and 3/2. Group 2 alone: 1."""
    found = exponential_weights(f64(0.0, 5.0, math.log(3)), ids(7, 2, 7), 1.0)
    assert_close(found, f64(0.5, 1.0, 1.5))


def test_unscored_samples_weigh_nothing():
    found = exponential_weights(f64(0.0, math.nan, math.log(3), math.nan), ids(1, 1, 1, 2), 1.0)
    assert_close(found, f64(0.5, 0.0, 1.5, 0.0))
    assert_close(raw_weights(f64(-0.5, math.nan), ids(1, 1), 1.0), f64(-0.5, 0.0))


def slow_weights(scores, groups, temperature):
    found = []
    for score, group in zip(scores, groups, strict=True):
        mine = [math.exp(s / temperature) for s, g in zip(scores, groups, strict=True) if g == group]
        found.append(math.exp(score / temperature) / (sum(mine) / len(mine)))
    return found


@given(
    rows=st.lists(st.tuples(st.floats(-3, 3), st.integers(0, 3)), min_size=1, max_size=12),
    temperature=st.floats(0.1, 10),
)
def test_exponential_weights_equal_a_slow_loop(rows, temperature):
    scores, groups = zip(*rows, strict=True)
    found = exponential_weights(f64(*scores), ids(*groups), temperature)
    assert_close(found, f64(*slow_weights(scores, groups, temperature)), rtol=1e-9, atol=1e-12)


@given(score=st.floats(-1e4, 1e4), count=st.integers(1, 9), temperature=st.floats(1e-3, 10))
def test_equal_scores_weigh_exactly_1(score, count, temperature):
    found = exponential_weights(torch.full((count,), score), torch.zeros(count, dtype=torch.int64), temperature)
    assert (found == 1).all()


@given(shift=st.floats(-1e3, 1e3))
def test_a_constant_added_to_a_group_changes_nothing(shift):
    scores, groups = f64(0.1, 0.7, 0.2, 0.9), ids(0, 0, 1, 1)
    moved = scores + torch.where(groups == 0, shift, 0.0)
    assert_close(
        exponential_weights(moved, groups, 0.5), exponential_weights(scores, groups, 0.5), rtol=1e-6, atol=1e-9
    )


def test_a_small_temperature_keeps_the_best_only():
    """Powers of e^1000 do not overflow: the largest score of the group is taken off first."""
    assert_close(exponential_weights(f64(0.0, 1.0, 0.5), ids(0, 0, 0), 1e-3), f64(0.0, 3.0, 0.0))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature above 0"):
        exponential_weights(f64(1.0), ids(0), 0.0)


def test_weighted_regression_by_hand():
    """Errors 1, 3 (first sample) and 2, 2 (second), weights 0.5 and -1: 0.5 * 2 = 1, -1 * 2 = -2."""
    error = f64(1.0, 2.0, 3.0, 2.0).view(2, 2).requires_grad_()
    loss = weighted_regression(error, f64(0.5, -1.0))
    assert_close(loss, f64(1.0, -2.0))
    (gradient,) = torch.autograd.grad(loss.sum(), error)
    assert_close(gradient, f64(0.25, -0.5).expand(2, 2))
