"""Schedules, dual variables, weights of prompts, running moments."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.shaping.running import RunningMoments
from align.shaping.weights import DualVariable, check_prompt_weights, scheduled, weight_entropy

NAN = math.nan


def test_schedule_by_hand():
    """From 1 to 3 in 4 steps, from step 2 on: half way at step 4, a cosine, too; at 1/4 that is at 1.29."""
    found = [scheduled(step, start=1.0, end=3.0, steps=4, begin=2) for step in (0, 2, 3, 4, 6, 99)]
    assert found == [1.0, 1.0, 1.5, 2.0, 3.0, 3.0]
    assert scheduled(4, start=1.0, end=3.0, steps=4, begin=2, shape="cosine") == pytest.approx(2.0)
    quarter = scheduled(3, start=1.0, end=3.0, steps=4, begin=2, shape="cosine")
    assert quarter == pytest.approx(1 + (1 - math.cos(math.pi / 4)))
    assert [scheduled(step, start=1.0, end=3.0, steps=4, shape="jump") for step in (3, 4)] == [1.0, 3.0]
    with pytest.raises(ValueError, match="`shape` must be one of linear, cosine, jump, found 'step'"):
        scheduled(0, start=1.0, end=3.0, steps=4, shape="step")
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        scheduled(0, start=1.0, end=3.0, steps=0)


def test_dual_variable_by_hand():
    """OCR >= 0.9, rate 2: mean 0.4 raises it by 1, to 1; mean 1.0 lowers it by 0.2; far above it stops at 0."""
    price = DualVariable(0.9, rate=2.0, largest=1.5)
    assert price.update(torch.tensor([0.3, 0.5, NAN], dtype=torch.float64)) == pytest.approx(1.0)
    assert price.update(torch.tensor([1.0])) == pytest.approx(0.8)
    assert price.update(torch.tensor([NAN])) == pytest.approx(0.8)
    assert price.update(torch.tensor([-9.0])) == 1.5
    assert price.update(torch.tensor([5.0])) == 0.0
    other = DualVariable(0.9, rate=2.0)
    price.update(torch.tensor([0.8]))
    other.load_state_dict(price.state_dict())
    assert other.value == price.value > 0
    with pytest.raises(ValueError, match="expected `rate` above 0"):
        DualVariable(0.9, rate=0.0)


def test_dual_variable_settles_where_the_constraint_holds():
    """A policy that spends share x on OCR: aesthetic 1 - x, OCR 1 - (1 - x)^2. It follows its gradient; the price ends
    where OCR = 0.75, that is x = 1/2, and price = 1 / (2 (1 - x)) = 1."""
    price, x = DualVariable(0.75, rate=0.1), 0.0
    for _ in range(4000):
        x = min(1.0, max(0.0, x + 0.01 * (-1 + price.value * 2 * (1 - x))))
        price.update(torch.tensor([1 - (1 - x) ** 2]))
    assert x == pytest.approx(0.5, abs=1e-3)
    assert price.value == pytest.approx(1.0, abs=1e-2)


def test_prompt_weights_must_not_depend_on_the_answer():
    ids = torch.tensor([4, 4, 9])
    check_prompt_weights(torch.tensor([[0.2, 0.8], [0.2, 0.8], [1.0, 0.0]]), ids)
    with pytest.raises(ValueError, match="weight 1 differs between the samples of prompt 4"):
        check_prompt_weights(torch.tensor([[0.2, 0.8], [0.2, 0.7], [1.0, 0.0]]), ids)
    with pytest.raises(ValueError, match="weight 0 differs between the samples of prompt 9, or is missing"):
        check_prompt_weights(torch.tensor([[0.2, 0.8], [0.2, 0.8], [NAN, 0.0]]), ids)


def test_entropy_by_hand():
    assert weight_entropy(torch.tensor([2.0, 2.0])) == pytest.approx(math.log(2))
    assert weight_entropy(torch.tensor([0.0, 3.0])) == 0.0
    assert weight_entropy(torch.tensor([[1.0, 1.0], [1.0, 0.0]])) == pytest.approx(math.log(2) / 2)


@given(batches=st.lists(st.lists(st.floats(-100, 100), max_size=5), min_size=1, max_size=5))
def test_running_moments_equal_those_of_everything_at_once(batches):
    moments = RunningMoments()
    for batch in batches:
        moments.update(torch.tensor([*batch, NAN], dtype=torch.float64))
    everything = torch.tensor([value for batch in batches for value in batch], dtype=torch.float64)
    assert moments.count == len(everything)
    if len(everything):
        assert moments.mean == pytest.approx(float(everything.mean()), abs=1e-9)
        assert moments.std(unbiased=False) == pytest.approx(float(everything.std(correction=0)), abs=1e-6)


def test_running_zscore_by_hand_and_after_a_checkpoint():
    """0 and 4: mean 2, population std 2: 6 is 2 above."""
    moments = RunningMoments()
    assert moments.zscore(torch.tensor([6.0])).tolist() == [0.0]
    moments.update(torch.tensor([0.0, 4.0]))
    assert moments.zscore(torch.tensor([6.0]), unbiased=False, eps=0.0).tolist() == [2.0]
    other = RunningMoments()
    other.load_state_dict(moments.state_dict())
    assert other.zscore(torch.tensor([7.0])).tolist() == moments.zscore(torch.tensor([7.0])).tolist()
