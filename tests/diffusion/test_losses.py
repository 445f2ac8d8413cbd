"""The AWM loss: matching error, weightings, policy term, velocity KL."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.losses import (
    KL_WEIGHTINGS,
    RATIOS,
    WEIGHTINGS,
    awm_log_prob,
    awm_policy_term,
    elbo_weight,
    matching_error,
    velocity_kl,
)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- matching error --------------------------------------------------------------------------------------------------


def test_matching_error_by_hand():
    """v = (1, 2), eps - x_0 = (3 - 1, 0 - 2) = (2, -2): ((-1)^2 + 4^2)/2 = 8.5."""
    error = matching_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0 - 1.0, 0.0 - 2.0]]))
    assert_close(error, f64(8.5), rtol=0, atol=0)


def test_matching_error_is_float64_for_half_precision_velocities():
    """A target of 1 + 1e-9 would be 1 in float32."""
    error = matching_error(torch.zeros(1, 2, dtype=torch.bfloat16), f64(1 + 1e-9, 1 + 1e-9)[None])
    assert error.dtype == torch.float64
    assert float(error) - 1 == pytest.approx(2e-9, rel=1e-6)


# --- weightings ------------------------------------------------------------------------------------------------------


def test_ghuber_published_example():
    """L = 0.5, t = 0.7, p = 1/4: log-probability -2.345656, slope -t L^(p-1) = -1.177255."""
    error = f64(0.5).requires_grad_()
    log_prob = awm_log_prob(error, f64(0.7))
    (slope,) = torch.autograd.grad(log_prob.sum(), error)
    assert float(log_prob.detach()) == pytest.approx(-2.345656, abs=5e-7)
    assert float(slope) == pytest.approx(-1.177255, abs=5e-7)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("uniform", -0.25), ("t", -0.125), ("t_squared", -0.0625), ("huber", -0.25 + 0.5e-5), ("ghuber", -1.4142135624)],
)
def test_weightings_by_hand(weighting, expected):
    """L = 1/4, t = 1/2: -1/4; -1/8; -1/16; -(1/2)(1/2 - 1e-5);
    -(1/2) 4 ((1/4)^(1/4) - 10^-2.5) = -1.4142136 + 0.0063246.
    """
    correction = 2 * 10**-2.5 if weighting == "ghuber" else 0.0
    assert float(awm_log_prob(f64(0.25), f64(0.5), weighting)) == pytest.approx(expected + correction, abs=1e-9)


@given(error=st.floats(0, 10), t=st.floats(0.01, 1))
def test_ghuber_contains_the_other_weightings(error, t):
    """p = 1 is the t weighting, p = 1/2 is twice huber."""
    assert_close(
        awm_log_prob(f64(error), f64(t), "ghuber", 1.0), awm_log_prob(f64(error), f64(t), "t"), rtol=1e-9, atol=1e-9
    )
    assert_close(awm_log_prob(f64(error), f64(t), "ghuber", 0.5), 2 * awm_log_prob(f64(error), f64(t), "huber"))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_perfect_predictor_has_log_prob_zero_and_finite_slope(weighting):
    clean, noise = randn(2, 3, 4)
    velocity = (noise - clean).requires_grad_()
    log_prob = awm_log_prob(matching_error(velocity, noise - clean), f64(0.2, 0.5, 0.9), weighting)
    assert (log_prob == 0).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), velocity)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_log_prob_falls_with_the_error(weighting):
    log_prob = awm_log_prob(torch.linspace(0, 3, 50, dtype=torch.float64), torch.full((50,), 0.4), weighting)
    assert (log_prob.diff() < 0).all()
    assert log_prob.dtype == torch.float64


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_gradient_by_finite_differences(weighting):
    clean, noise, velocity = randn(3, 2, 3)
    t = f64(0.3, 0.8)
    loss = lambda v: awm_log_prob(matching_error(v, noise - clean), t, weighting)  # noqa: E731
    assert torch.autograd.gradcheck(loss, velocity.requires_grad_())


# --- policy term -----------------------------------------------------------------------------------------------------


def test_policy_term_by_hand():
    """Two times, one sample with A = 2, log-ratios ln 2 and ln 1.5, clip 0.25 (ratios count up to 1.25).

    exp_first: both ratios are clipped, -2 * 1.25 each, mean -2.5.
    sum_first: mean log-ratio ln sqrt(3), ratio 1.732, clipped: -2.5;
    with A = -2 the pessimistic side is not clipped: 2 sqrt(3).
    """
    new, old = f64(2.0, 1.5).log()[:, None], torch.zeros(2, 1, dtype=torch.float64)
    assert_close(awm_policy_term(new, old, f64(2.0), 0.25).loss, f64(-2.5))
    assert_close(awm_policy_term(new, old, f64(2.0), 0.25, "sum_first").loss, f64(-2.5))
    assert_close(awm_policy_term(new, old, f64(-2.0), 0.25, "sum_first").loss, f64(2 * 3**0.5))
    assert_close(awm_policy_term(new, old, f64(-2.0), 0.25).loss, f64((4.0 + 3.0) / 2))
    assert_close(awm_policy_term(new, old, f64(2.0), 0.25).log_ratio, new)
    assert_close(awm_policy_term(new, old, f64(2.0), 0.25, "sum_first").log_ratio, f64(3**0.5).log()[None])


@pytest.mark.parametrize("ratio", RATIOS)
@given(seed=st.integers(0, 2**16), times=st.integers(1, 5), samples=st.integers(1, 4), clip=st.floats(0.01, 1))
def test_policy_term_equals_a_slow_loop(ratio, seed, times, samples, clip):
    new, old = randn(2, times, samples, seed=seed)
    advantages = randn(samples, seed=seed + 1)
    found = awm_policy_term(new, old, advantages, clip, ratio).loss

    def surrogate(log_ratio, a):
        r = float(log_ratio.exp())
        return max(-a * r, -a * min(max(r, 1 - clip), 1 + clip))

    for i in range(samples):
        a = float(advantages[i])
        whole = surrogate(new[:, i].mean() - old[:, i].mean(), a)
        each = sum(surrogate(new[k, i] - old[k, i], a) for k in range(times)) / times
        assert float(found[i]) == pytest.approx({"exp_first": each, "sum_first": whole}[ratio], rel=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_zero_advantages_give_a_finite_loss_and_no_gradient(ratio):
    new = (5 * randn(3, 4)).requires_grad_()
    term = awm_policy_term(new, randn(3, 4, seed=1), torch.zeros(4), 1.0, ratio)
    (gradient,) = torch.autograd.grad(term.loss.sum(), new)
    assert (term.loss == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_on_policy_gradient_is_minus_the_advantage(ratio):
    """Where old and new agree the ratio is 1 bit for bit, and dL/dlogp = -A / (T B) for the mean over samples."""
    new, advantages = randn(3, 4).requires_grad_(), randn(4, seed=1)
    term = awm_policy_term(new, new.detach(), advantages, 1.0, ratio)
    (gradient,) = torch.autograd.grad(term.loss.mean(), new)
    assert (term.log_ratio == 0).all()
    assert_close(term.loss, -advantages)
    assert_close(gradient, (-advantages / 12).expand(3, 4))


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "pushes"), [(1.0, 0.5, False), (-1.0, 0.5, True), (1.0, -0.5, True), (-1.0, -0.5, False)]
)
def test_the_clip_is_pessimistic(advantage, log_ratio, pushes):
    """Clip 0.2: a good sample that is likely enough, or a bad one that is unlikely enough, is left alone;
    the others are pushed.
    """
    new = f64(log_ratio)[None].requires_grad_()
    term = awm_policy_term(new, torch.zeros(1, 1, dtype=torch.float64), f64(advantage), 0.2)
    (gradient,) = torch.autograd.grad(term.loss.sum(), new)
    assert bool(gradient != 0) == pushes


def test_old_log_probs_are_constants():
    new, old = randn(2, 2, 3)
    old.requires_grad_()
    loss = awm_policy_term(new.requires_grad_(), old, randn(3, seed=1), 1.0).loss.sum()
    loss.backward()
    assert old.grad is None


def test_on_policy_gradient_is_weighted_flow_matching():
    """ghuber on policy: the gradient on the network is that of mean(A t (L + d)^p / p);
    equal advantages scale plain matching.
    """
    clean, noise = randn(2, 3, 5)
    velocity, t, advantages = randn(3, 5, seed=1), f64(0.2, 0.5, 0.9), f64(1.5, -0.5, 0.3)

    def gradient(loss_of):
        v = velocity.clone().requires_grad_()
        return torch.autograd.grad(loss_of(matching_error(v, noise - clean)), v)[0]

    def awm(weighting, a):
        def loss(error):
            log_prob = awm_log_prob(error, t, weighting)[None]
            return awm_policy_term(log_prob, log_prob.detach(), a).loss.mean()

        return loss

    assert_close(
        gradient(awm("ghuber", advantages)), gradient(lambda e: (advantages * t * (e + 1e-10) ** 0.25 / 0.25).mean())
    )
    assert_close(gradient(awm("uniform", f64(0.7, 0.7, 0.7))), 0.7 * gradient(lambda e: e.mean()))


def test_a_good_sample_is_pulled_and_a_bad_one_pushed():
    """One descent step lowers the matching error where A > 0 and raises it where A < 0."""
    clean, noise = randn(2, 2, 5)
    velocity = randn(2, 5, seed=1).requires_grad_()
    before = matching_error(velocity, noise - clean)
    log_prob = awm_log_prob(before, f64(0.5, 0.5))[None]
    loss = awm_policy_term(log_prob, log_prob.detach(), f64(1.0, -1.0)).loss.mean()
    (gradient,) = torch.autograd.grad(loss, velocity)
    after = matching_error(velocity - 1e-3 * gradient, noise - clean)
    assert after[0] < before[0]
    assert after[1] > before[1]


# --- velocity KL -----------------------------------------------------------------------------------------------------


def test_velocity_kl_by_hand():
    """v - v' = (1, -3): mean square (1 + 9)/2 = 5. elbo at t = 1/2: std = 0.7 sqrt(1) -> 1/(2 * 0.49) = 1.020408."""
    v, other = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 4.0]])
    assert_close(velocity_kl(v, other, torch.tensor([0.5])), torch.tensor([5.0]))
    assert_close(velocity_kl(v, other, torch.tensor([0.5]), "elbo"), torch.tensor([5 / 0.98]))


@given(t=st.floats(0.01, 0.98))
def test_elbo_weight_below_the_cap(t):
    assert_close(elbo_weight(f64(t)), f64(1 / (2 * 0.49 * t / (1 - t))))


def test_elbo_weight_is_capped_at_pure_noise():
    """t = 1: std = 0.7 sqrt(1 / 0.01) = 7, weight 1/98, not 0."""
    assert_close(elbo_weight(f64(1.0)), f64(1 / 98))


@pytest.mark.parametrize("weighting", KL_WEIGHTINGS)
def test_velocity_kl_of_equal_policies_is_zero_with_zero_gradient(weighting):
    v = randn(3, 2, 4).requires_grad_()
    kl = velocity_kl(v, v.detach().clone(), f64(0.1, 0.5, 1.0), weighting)
    (gradient,) = torch.autograd.grad(kl.sum(), v)
    assert (kl == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("weighting", KL_WEIGHTINGS)
def test_velocity_kl_is_quadratic_and_differentiable(weighting):
    v, other = randn(2, 3, 4)
    t = f64(0.1, 0.5, 1.0)
    single, double = (velocity_kl(other + k * (v - other), other, t, weighting) for k in (1, 2))
    assert_close(double, 4 * single)
    assert (single > 0).all()
    assert torch.autograd.gradcheck(lambda w: velocity_kl(w, other, t, weighting), v.requires_grad_())


def test_the_other_policy_is_a_constant_and_half_precision_is_widened():
    v, other = randn(2, 3, 4).half()
    other.requires_grad_()
    v.requires_grad_()
    kl = velocity_kl(v, other, f64(0.1, 0.5, 1.0))
    kl.sum().backward()
    assert kl.dtype == torch.float32
    assert other.grad is None
    assert_close(kl, velocity_kl(v.float(), other.float(), f64(0.1, 0.5, 1.0)))


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda x: awm_log_prob(x, x, "ghubr"), "'ghuber', 'huber', 't'"),
        (lambda x: awm_policy_term(x[None], x[None], x, 1.0, "sum"), "'exp_first', 'sum_first'"),
        (lambda x: velocity_kl(x[None], x[None], x, "none"), "'elbo', 'uniform'"),
    ],
)
def test_unknown_names_list_the_known_ones(call, known):
    with pytest.raises(ValueError, match=known):
        call(f64(0.5))
