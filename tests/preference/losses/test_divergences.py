"""Scores of log-ratios under other divergences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.losses import divergence_score, dpo


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("reverse_kl", math.log(3)),
        ("forward_kl", 1 - 1 / 3),
        ("js", math.log(2 * 3 / 4)),
        ("alpha", (3**-0.5 - 1) / -0.5),
    ],
)
def test_by_hand(kind, expected):
    """u = pi / pi_ref = 3: log 3; 1 - 1/3; log(2u / (1 + u)) = log 1.5; (u^(alpha - 1) - 1)/(alpha - 1) at 1/2."""
    assert float(divergence_score(f64(math.log(3)), kind)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("kind", "slope"), [("reverse_kl", 1.0), ("forward_kl", 1.0), ("js", 0.5), ("alpha", 1.0)])
def test_zero_and_slope_at_the_reference(kind, slope):
    """js is flatter by half: it goes to first order with beta / 2."""
    ratio = f64(0).requires_grad_()
    score = divergence_score(ratio, kind)
    score.sum().backward()
    assert float(score.detach()) == pytest.approx(0, abs=1e-15)
    assert float(ratio.grad) == pytest.approx(slope, rel=1e-12)


@given(a=st.floats(-20, 20))
def test_alpha_contains_both_kl(a):
    assert_close(divergence_score(f64(a), "alpha", alpha=1.0), divergence_score(f64(a), "reverse_kl"))
    assert_close(divergence_score(f64(a), "alpha", alpha=0.0), divergence_score(f64(a), "forward_kl"))
    # close to 1 by continuity: second order term (alpha - 1) a^2 / 2
    near = float(divergence_score(f64(a), "alpha", alpha=1 + 1e-5))
    assert near == pytest.approx(a, abs=1e-5 * a * a + 1e-9)


@given(a=st.floats(-20, 20), step=st.floats(0.01, 5), kind=st.sampled_from(["forward_kl", "js", "alpha"]))
def test_scores_grow_with_the_ratio(a, step, kind):
    assert float(divergence_score(f64(a + step), kind)) > float(divergence_score(f64(a), kind))


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "js", "alpha"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_are_finite(kind, dtype):
    ratio = torch.tensor([-60000.0, 60000.0], dtype=dtype).requires_grad_()
    score = divergence_score(ratio, kind)
    score.sum().backward()
    assert score.dtype == torch.float32
    assert bool(score.isfinite().all())
    assert bool(ratio.grad.isfinite().all())


def test_forward_kl_in_dpo_by_hand():
    """A = log 2, b = -log 2: scores 1 - 1/2 and 1 - 2, h = 1.5; beta 1: log(1 + e^-1.5). Rewards stay beta a."""
    out = dpo(f64(math.log(2)), f64(-math.log(2)), f64(0), f64(0), beta=1.0, divergence="forward_kl")
    assert float(out.losses) == pytest.approx(math.log1p(math.exp(-1.5)), rel=1e-12)
    assert float(out.chosen_rewards) == pytest.approx(math.log(2))
