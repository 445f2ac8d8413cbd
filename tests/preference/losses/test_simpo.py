"""SimPO: by hand, its gradient, and what separates it from DPO."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.logprobs import pool_tokens
from preference.losses import dpo, simpo


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand():
    """m_w = -1, m_l = -2, beta 2, rho 0.25: x = 2 (1 - 0.25) = 1.5, log(1 + e^-1.5) = 0.2014133; rewards -2, -4."""
    out = simpo(f64(-1), f64(-2), beta=2.0, gamma_beta_ratio=0.25)
    assert_close(out.losses, f64(0.2014133), rtol=0, atol=1e-7)
    assert (float(out.chosen_rewards), float(out.rejected_rewards)) == (-2.0, -4.0)
    assert_close(simpo(f64(-1), f64(-2), beta=2.0, gamma=0.5).losses, out.losses)


def test_hinge_by_hand():
    """x = 2 (0.5 - 0.25) = 0.5: max(0, 1 - 0.5) = 0.5."""
    assert float(simpo(f64(-1), f64(-1.5), beta=2.0, gamma_beta_ratio=0.25, kind="hinge").losses) == 0.5


def test_alpha_by_hand():
    """Alpha 1: m becomes 1 - e^-m: 1 - e and 1 - e^2; x = 2 (e^2 - e) = 9.3415 at rho 0."""
    out = simpo(f64(-1), f64(-2), beta=2.0, gamma_beta_ratio=0.0, alpha=1.0)
    assert float(out.losses) == pytest.approx(math.log1p(math.exp(-2 * (math.e**2 - math.e))), rel=1e-9)


@given(m=st.floats(-10, 0), shift=st.floats(-5, 5), gamma=st.floats(0, 3))
def test_only_the_difference_counts(m, shift, gamma):
    """Equal averages cost softplus(gamma), not log 2."""
    loss = simpo(f64(m + shift), f64(m + shift), beta=2.0, gamma=gamma).losses
    assert float(loss) == pytest.approx(math.log1p(math.exp(gamma)), rel=1e-9)


def test_gradient_per_token_is_beta_s_over_n():
    """Two chosen tokens of -1, four rejected of -1, gamma 0: s = 1/2; beta 2: -2/2/2 = -0.5 and 2/2/4 = 0.25 each."""
    chosen = torch.full((1, 2), -1.0, dtype=torch.float64).requires_grad_()
    rejected = torch.full((1, 4), -1.0, dtype=torch.float64).requires_grad_()
    averages = [pool_tokens(values, torch.ones_like(values), average=True) for values in (chosen, rejected)]
    simpo(*averages, beta=2.0, gamma=0.0).losses.sum().backward()
    assert_close(chosen.grad, torch.full((1, 2), -0.5, dtype=torch.float64))
    assert_close(rejected.grad, torch.full((1, 4), 0.25, dtype=torch.float64))


def test_repeating_an_answer_changes_nothing_here_and_something_in_dpo():
    tokens = f64(-1.0, -0.5, -2.0)[None]
    once, twice = tokens, torch.cat([tokens, tokens], dim=1)
    rejected = f64(-1.0)

    def averaged(values):
        return simpo(pool_tokens(values, torch.ones_like(values), True), rejected, beta=2.0, gamma=0.5).losses

    def summed(values):
        chosen = pool_tokens(values, torch.ones_like(values))
        return dpo(chosen, rejected, None, None, beta=2.0, reference_weight=0.0).losses

    assert_close(averaged(once), averaged(twice))
    assert float((summed(once) - summed(twice)).abs()) > 1


def test_equal_lengths_without_margin_is_reference_free_dpo():
    """beta on averages of n = 4 tokens is beta / 4 on sums."""
    chosen, rejected = f64(-8.0, -3.0), f64(-6.0, -5.0)
    ours = simpo(chosen / 4, rejected / 4, beta=2.0, gamma=0.0).losses
    assert_close(ours, dpo(chosen, rejected, None, None, beta=0.5, reference_weight=0.0).losses)


def test_swapping_a_pair_negates_its_margin():
    one, other = (simpo(*pair, beta=2.0, gamma=0.5) for pair in ((f64(-1), f64(-3)), (f64(-3), f64(-1))))
    assert float(one.margins) == -float(other.margins) == 4.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_extremes_are_finite(dtype, alpha):
    chosen = torch.tensor([-60000.0, 0.0], dtype=dtype).requires_grad_()
    out = simpo(chosen, chosen.detach().flip(0), beta=10.0, gamma=1.0, alpha=alpha)
    out.losses.sum().backward()
    assert out.losses.dtype == torch.float32
    assert bool(out.losses.isfinite().all())
    assert bool(chosen.grad.isfinite().all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "found neither"),
        ({"gamma": 1.0, "gamma_beta_ratio": 0.5}, "found both"),
        ({"gamma": 1.0, "beta": -1.0}, "`beta` must be above 0"),
        ({"gamma": 1.0, "kind": "ipo"}, "no SimPO loss 'ipo'"),
        ({"gamma": 1.0, "kind": "hinge", "label_smoothing": 0.1}, "no use for label_smoothing"),
        ({"gamma": 1.0, "label_smoothing": 0.6}, "label_smoothing"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simpo(f64(-1), f64(-2), **{"beta": 2.0, **arguments})
