"""The lagged policy: schedules by hand, a step by hand, its state."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from diffusion.config import ConstantLag, LinearLag
from diffusion.lagged import LaggedPolicy, lag_decay

from .models.assembled import assemble


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ConstantLag(), {1: 0.0, 1000: 0.0}),  # DiffusionNFT type 0: the policy of the last step
        (ConstantLag(decay=0.9), {1: 0.9, 1000: 0.9}),
        (LinearLag(per_step=0.001, max_decay=0.5), {1: 0.001, 100: 0.1, 500: 0.5, 9999: 0.5}),  # type 1
        (LinearLag(per_step=0.0075, max_decay=0.999, start=75), {1: 0.0, 75: 0.0, 76: 0.0075, 175: 0.75, 999: 0.999}),
        (LinearLag(), {1: 0.001, 300: 0.3, 301: 0.3}),  # AWM
    ],
)
def test_schedules_by_hand(schedule, expected):
    for step, decay in expected.items():
        assert lag_decay(schedule, step) == pytest.approx(decay, abs=1e-12)


def test_follow_by_hand():
    """Share 0.25 of the copy stays: w_lagged <- 0.25 w0 + 0.75 w1. The policy itself is not touched."""
    parts = assemble()
    lagged = LaggedPolicy(parts.policy, ConstantLag(decay=0.25))
    before = {name: weight.clone() for name, weight in parts.policy.state_dict().items()}
    parts.disturb()
    now = {name: weight.clone() for name, weight in parts.policy.state_dict().items()}
    assert lagged.follow(1) == 0.25
    for name, weight in lagged.weights.items():
        assert_close(weight, 0.25 * before[name] + 0.75 * now[name])
        assert torch.equal(parts.policy.state_dict()[name], now[name])


def test_a_share_of_zero_copies():
    parts = assemble()
    lagged = LaggedPolicy(parts.policy, ConstantLag())
    parts.disturb()
    lagged.follow(1)
    for name, weight in lagged.weights.items():
        assert torch.equal(weight, parts.policy.state_dict()[name])
    parts.disturb("again")
    assert any(not torch.equal(weight, parts.policy.state_dict()[name]) for name, weight in lagged.weights.items())


def test_swapped_shows_the_copy():
    parts = assemble()
    lagged = LaggedPolicy(parts.policy, ConstantLag())
    parts.disturb()
    with lagged.swapped():
        assert all(torch.equal(lagged.weights[name], weight) for name, weight in parts.policy.state_dict().items())


def test_state_round_trip_and_a_fresh_start():
    """A weight that was not saved starts from the current policy's."""
    parts = assemble()
    lagged, again = (LaggedPolicy(parts.policy, ConstantLag()) for _ in range(2))
    saved = {name: weight + 1 for name, weight in lagged.state_dict().items()}
    again.load_state_dict(saved)
    assert all(torch.equal(again.weights[name], weight) for name, weight in saved.items())
    parts.disturb()
    again.load_state_dict({})
    assert all(torch.equal(again.weights[name], weight) for name, weight in parts.policy.state_dict().items())
