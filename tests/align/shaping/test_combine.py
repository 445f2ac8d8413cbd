"""Rewards to one score."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping.combine import weighted_sum

NAN = math.nan


def test_by_hand():
    """1*2 + 10*0.5 = 7 and 3*2 - 4*0.5 = 4."""
    values, weights = torch.tensor([[1.0, 10.0], [3.0, -4.0]]), torch.tensor([2.0, 0.5])
    assert weighted_sum(values, weights).tolist() == [7.0, 4.0]


def test_weights_per_sample():
    values = torch.tensor([[1.0, 10.0], [1.0, 10.0]])
    assert weighted_sum(values, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [1.0, 10.0]


def test_an_unscored_reward_leaves_the_sample_unscored_unless_it_is_a_metric():
    values = torch.tensor([[1.0, NAN], [NAN, 2.0], [3.0, 4.0], [5.0, math.inf]])
    found = weighted_sum(values, torch.tensor([1.0, 0.0]))
    assert_close(found, torch.tensor([1.0, NAN, 3.0, 5.0]), equal_nan=True)
    both = weighted_sum(values[:3], torch.tensor([1.0, 1.0]))
    assert_close(both, torch.tensor([NAN, NAN, 7.0]), equal_nan=True)


def test_precision_is_that_of_the_values():
    assert weighted_sum(torch.ones(2, 2), torch.ones(2)).dtype == torch.float32
    assert weighted_sum(torch.ones(2, 2).double(), torch.ones(2)).dtype == torch.float64


@given(rewards=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), copies=st.integers(2, 33))
def test_equal_rows_have_bit_equal_scores_wherever_they_stand(rewards, copies):
    """Else rounding would make a spread, and an estimator advantages, out of nothing."""
    weights = torch.linspace(0.1, 1.7, len(rewards))
    scores = weighted_sum(torch.tensor([rewards] * copies), weights)
    assert (scores == scores[0]).all()


@pytest.mark.parametrize("scale", [0.5, -3.0])
def test_is_linear_in_the_weights(scale):
    values = torch.tensor([[1.5, 2.0, -1.0], [0.25, 4.0, 8.0]])
    weights = torch.tensor([1.0, 2.0, 3.0])
    found = weighted_sum(values, scale * weights, allow_negative=scale < 0)
    assert_close(found, scale * weighted_sum(values, weights))
