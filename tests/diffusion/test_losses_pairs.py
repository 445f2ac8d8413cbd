"""The Diffusion-DPO loss: by hand, at the reference, swapped, smoothed, against a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.losses import implicit_reward, pair_loss


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def margin_of(chosen, rejected, base_chosen, base_rejected, beta):
    return implicit_reward(chosen, base_chosen, beta) - implicit_reward(rejected, base_rejected, beta)


def test_margin_by_hand():
    """beta 4, L_w = 1, L_l = 2, base 1.5 and 1.75: z = -2 ((1 - 2) - (1.5 - 1.75)) = 1.5; loss ln(1 + e^-1.5)."""
    margin = margin_of(f64(1.0), f64(2.0), f64(1.5), f64(1.75), 4.0)
    assert_close(margin, f64(1.5))
    assert_close(pair_loss(margin), f64(math.log1p(math.exp(-1.5))))


@given(chosen=st.floats(0, 5), rejected=st.floats(0, 5), beta=st.floats(0.1, 5000))
def test_at_the_reference_the_loss_is_ln_2(chosen, rejected, beta):
    margin = margin_of(f64(chosen), f64(rejected), f64(chosen), f64(rejected), beta)
    assert pair_loss(margin).item() == pytest.approx(math.log(2), abs=1e-15)


@given(errors=st.lists(st.floats(0, 3), min_size=4, max_size=4), beta=st.floats(0.1, 100))
def test_swapping_the_pictures_negates_the_margin(errors, beta):
    chosen, rejected, base_chosen, base_rejected = (f64(value) for value in errors)
    there = margin_of(chosen, rejected, base_chosen, base_rejected, beta)
    back = margin_of(rejected, chosen, base_rejected, base_chosen, beta)
    assert_close(there, -back)


@given(margin=st.floats(-40, 40), smoothing=st.floats(0, 0.49))
def test_loss_equals_a_slow_formula(margin, smoothing):
    expected = (1 - smoothing) * math.log1p(math.exp(-margin)) + smoothing * math.log1p(math.exp(margin))
    assert pair_loss(f64(margin), smoothing).item() == pytest.approx(expected, rel=1e-9)


def test_smoothing_has_a_finite_optimum():
    """Minimum where sigmoid(z) = 1 - eps: z = ln(0.9 / 0.1) for eps = 0.1."""
    margin = f64(math.log(9)).requires_grad_()
    (slope,) = torch.autograd.grad(pair_loss(margin, 0.1).sum(), margin)
    assert abs(float(slope)) < 1e-12


def test_gradients_by_finite_differences_and_none_to_the_reference():
    errors = f64(1.0, 2.0, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: pair_loss(implicit_reward(e, f64(1.1, 1.5, 0.9), 3.0), 0.05), errors)
    base = f64(1.0).requires_grad_()
    assert not implicit_reward(f64(2.0), base, 3.0).requires_grad


def test_extreme_margins_are_finite():
    for margin in (1e6, -1e6):
        value = f64(margin).requires_grad_()
        loss = pair_loss(value)
        (slope,) = torch.autograd.grad(loss.sum(), value)
        assert loss.isfinite().all()
        assert slope.isfinite().all()
