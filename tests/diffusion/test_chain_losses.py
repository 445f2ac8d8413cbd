"""Losses of one step of a chain: by hand, against slow loops, and the identities of the KL forms and of GRPO-Guard."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from
from torch.testing import assert_close

from align.engine.random import generator
from diffusion.losses.chain import (
    clipped_objective,
    guarded_log_ratio,
    ratio_metrics,
    released_kl,
    score_function,
    transition_kl,
)
from diffusion.losses.distance import velocity_kl
from diffusion.samplers import flow_sde_step
from diffusion.step import gaussian_log_prob


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "losses"), dtype=torch.float64)


# --- objectives -------------------------------------------------------------------------------------------------------


def test_ppo_min_by_hand():
    """A = 2, c = 0.1: rho 1.2 counts as 1.1 -> -2.2, rho 0.8 as itself -> -1.6.

    A = -2: rho 1.2 as itself -> 2.4, rho 0.8 as 0.9 -> 1.8.
    """
    log_ratio, advantages = f64(1.2, 0.8, 1.2, 0.8).log(), f64(2, 2, -2, -2)
    assert_close(clipped_objective(log_ratio, advantages, 0.1), f64(-2.2, -1.6, 2.4, 1.8))


def test_clip_only_by_hand():
    """The same four: a ratio outside counts as its bound, whatever the sign of A."""
    log_ratio, advantages = f64(1.2, 0.8, 1.2, 0.8).log(), f64(2, 2, -2, -2)
    assert_close(clipped_objective(log_ratio, advantages, 0.1, "clip_only"), f64(-2.2, -1.8, 2.2, 1.8))


@pytest.mark.parametrize(
    ("objective", "advantage", "ratio", "moves"),
    [
        ("ppo_min", 1.0, 1.2, False),
        ("ppo_min", -1.0, 1.2, True),  # pessimistic: pulled back
        ("ppo_min", 1.0, 0.8, True),
        ("ppo_min", -1.0, 0.8, False),
        ("clip_only", 1.0, 1.2, False),
        ("clip_only", -1.0, 1.2, False),
        ("clip_only", 1.0, 0.8, False),
        ("clip_only", -1.0, 0.8, False),
        ("clip_only", 1.0, 1.05, True),
    ],
)
def test_where_the_clip_stops_the_gradient(objective, advantage, ratio, moves):
    log_ratio = f64(ratio).log().requires_grad_()
    clipped_objective(log_ratio, f64(advantage), 0.1, objective).sum().backward()
    assert (log_ratio.grad != 0).item() == moves
    assert float(log_ratio.grad) * advantage <= 0  # never away from the good or towards the bad


@given(objective=sampled_from(["ppo_min", "clip_only"]), seed=integers(0, 99), clip=floats(1e-5, 0.5))
def test_on_policy_gradient_is_minus_the_advantage(objective, seed, clip):
    """rho = 1: d loss / d log p = -A, for any clip range."""
    advantages = randn(6, seed=seed)
    log_ratio = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    clipped_objective(log_ratio, advantages, clip, objective).sum().backward()
    assert_close(log_ratio.grad, -advantages)


@given(objective=sampled_from(["ppo_min", "clip_only"]), seed=integers(0, 99), clip=floats(1e-5, 0.5))
def test_objectives_equal_a_slow_loop(objective, seed, clip):
    log_ratio, advantages = 0.3 * randn(8, seed=seed), randn(8, seed=seed + 1)
    expected = []
    for d, a in zip(log_ratio.tolist(), advantages.tolist(), strict=True):
        rho = math.exp(d)
        bounded = min(max(rho, 1 - clip), 1 + clip)
        expected.append(-min(rho * a, bounded * a) if objective == "ppo_min" else -bounded * a)
    assert_close(clipped_objective(log_ratio, advantages, clip, objective), f64(*expected))


@pytest.mark.parametrize("objective", ["ppo_min", "clip_only"])
def test_zero_advantages_and_runaway_ratios_are_finite(objective):
    """exp(800) overflows in float64; neither loss nor gradient may become NaN where the clip or A = 0 stops it."""
    log_ratio = f64(0.0, 800.0, 800.0).requires_grad_()
    loss = clipped_objective(log_ratio, f64(0.0, 0.0, 1.0), 0.1, objective)
    loss.sum().backward()
    assert loss[:2].tolist() == [0, 0]
    assert_close(loss[2].item(), -1.1)
    if objective == "clip_only":
        assert log_ratio.grad.tolist() == [0, 0, 0]
    assert log_ratio.grad[:2].tolist() == [0, 0]


def test_score_function_by_hand():
    """-A log p: -2 * -1.5 = 3, and exactly 0 where A is 0, with gradient -A."""
    log_probs = f64(-1.5, -4.0).requires_grad_()
    loss = score_function(log_probs, f64(2.0, 0.0))
    loss.sum().backward()
    assert loss.tolist() == [3, 0]
    assert log_probs.grad.tolist() == [-2, 0]


def test_unknown_objectives_list_the_known_ones():
    with pytest.raises(ValueError, match="expected objective to be one of"):
        clipped_objective(f64(0.0), f64(1.0), 0.1, "trpo")


# --- the three KL forms -----------------------------------------------------------------------------------------------


def two_policies(seed: int, t: float, t_next: float, level: float):
    """Flow-SDE steps of two velocities at the same latents of 24 elements."""
    x, v, other = (randn(3, 4, 2, 3, seed=seed + i) for i in range(3))
    options = {"noise_level": level, "t_second": 0.9, "noise": randn(3, 4, 2, 3, seed=seed + 3)}
    return flow_sde_step(x, v, t, t_next, **options), flow_sde_step(x, other, t, t_next, **options), v, other


@given(seed=integers(0, 99), t=floats(0.05, 0.95), share=floats(0.1, 0.95), level=floats(0.1, 1.2))
def test_identities_of_the_kl_forms(seed, t, share, level):
    """released x 1/|dt| x D == exact == torch's KL of the two Gaussians == the paper's closed form in velocities.

    The closed form: |dt|/2 (1/g + g (1 - t)/(2 t))^2 |v - v_other|^2 with g = std / sqrt(|dt|).
    """
    t_next = t * share
    dt = torch.full((3,), t_next - t, dtype=torch.float64)
    now, base, v, other = two_policies(seed, t, t_next, level)
    exact = transition_kl(now.mean, base.mean, now.std)
    assert_close(released_kl(now.mean, base.mean, now.std, dt) / dt.abs() * 24, exact)
    std = now.std.reshape(-1, 1, 1, 1).expand_as(now.mean)
    gaussians = (torch.distributions.Normal(mean, std) for mean in (now.mean, base.mean))
    assert_close(torch.distributions.kl_divergence(*gaussians).flatten(1).sum(1), exact)
    g = now.std / dt.abs().sqrt()
    closed = dt.abs() / 2 * (1 / g + g * (1 - t) / (2 * t)) ** 2 * ((v - other) ** 2).flatten(1).sum(1)
    assert_close(closed, exact)


def test_released_kl_by_hand():
    """Means 1 apart in 4 elements, std 0.5, dt -0.25: g^2 = 0.25 / 0.25 = 1, so 1 / (2 * 1); exact: 4 / (2 * 0.25)."""
    mean, other = torch.zeros(1, 4, 1, 1, dtype=torch.float64), torch.ones(1, 4, 1, 1, dtype=torch.float64)
    assert released_kl(mean, other, f64(0.5), f64(-0.25)).tolist() == [0.5]
    assert transition_kl(mean, other, f64(0.5)).tolist() == [8.0]


@pytest.mark.parametrize("form", ["exact", "released", "velocity"])
def test_distances_are_quadratic_zero_at_home_and_differentiable(form):
    mean, other = randn(2, 3, 2, 2).requires_grad_(), randn(2, 3, 2, 2, seed=1)
    measure = {
        "exact": lambda a, b: transition_kl(a, b, f64(0.3, 0.4)),
        "released": lambda a, b: released_kl(a, b, f64(0.3, 0.4), f64(-0.1, -0.2)),
        "velocity": lambda a, b: velocity_kl(a, b, f64(0.5, 0.5)),
    }[form]
    assert measure(mean, mean).tolist() == [0, 0]
    assert_close(measure(other + 2 * (mean - other), other), 4 * measure(mean, other))
    assert torch.autograd.gradcheck(lambda value: measure(value, other), (mean,))


# --- GRPO-Guard -------------------------------------------------------------------------------------------------------


def test_guarded_log_ratio_by_hand():
    """s = 0.5, one element: x = 1, mean 0.8, old mean 0.4.

    log p - log p_old = (0.6^2 - 0.2^2) / (2 * 0.25) = 0.64;  0.5 * 0.64 + 0.4^2 / (2 * 0.5) = 0.32 + 0.16 = 0.48,
    which is (mean - old)(x - old) / s = 0.4 * 0.6 / 0.5.
    """
    x, mean, old = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (1.0, 0.8, 0.4))
    new_log_prob, old_log_prob = (gaussian_log_prob(x, m, f64(0.5)) for m in (mean, old))
    assert_close(guarded_log_ratio(new_log_prob, old_log_prob, mean, old, f64(0.5)), f64(0.48))


@given(seed=integers(0, 99), std=floats(0.05, 2.0))
def test_guarded_log_ratio_is_linear_in_the_noise(seed, std):
    """mean over elements of (mean - old)(x - old) / s: opposite noise gives the opposite, so its expectation is 0."""
    old, moved, xi = randn(2, 6, seed=seed), 0.1 * randn(2, 6, seed=seed + 1), randn(2, 6, seed=seed + 2)
    s = f64(std, std)
    found = []
    for sign in (1, -1):
        x = old + sign * std * xi
        new_log_prob, old_log_prob = (gaussian_log_prob(x, m, s) for m in (old + moved, old))
        found.append(guarded_log_ratio(new_log_prob, old_log_prob, old + moved, old, s))
    assert_close(found[0], (moved * xi).mean(1), rtol=1e-9, atol=1e-12)
    assert_close(found[0], -found[1], rtol=1e-9, atol=1e-12)


def test_the_plain_log_ratio_is_biased_and_the_guarded_one_is_not():
    """E[log rho] = -delta^2 / 2 for a drift of delta standard deviations; 4,000 samples of 8 elements.

    delta = 0.5: -0.125, with a standard error of 0.5 / sqrt(8 * 4000) = 0.003. Guarded: s times that noise around 0.
    """
    n, std, delta = 4000, 0.2, 0.5
    old = torch.zeros(n, 8, dtype=torch.float64)
    mean, s = old + delta * std, torch.full((n,), std, dtype=torch.float64)
    x = old + std * randn(n, 8, seed=3)
    new_log_prob, old_log_prob = (gaussian_log_prob(x, m, s) for m in (mean, old))
    assert abs(float((new_log_prob - old_log_prob).mean()) + 0.125) < 0.012
    assert abs(float(guarded_log_ratio(new_log_prob, old_log_prob, mean, old, s).mean())) < std * 0.012


def test_guard_on_policy_has_the_gradient_of_s_log_p():
    mean = randn(2, 5).requires_grad_()
    x, s = randn(2, 5, seed=1), f64(0.3, 0.7)
    log_prob = gaussian_log_prob(x, mean, s)
    guarded_log_ratio(log_prob, log_prob.detach(), mean, mean.detach(), s).sum().backward()
    found, mean.grad = mean.grad, None
    (s * gaussian_log_prob(x, mean, s)).sum().backward()
    assert_close(found, mean.grad)


# --- for the log ------------------------------------------------------------------------------------------------------


def test_ratio_metrics_by_hand():
    """rho = 1, 1.2, 0.7, 1.05 and clip 0.1: one above, one below; deviations 0, 0.2, 0.3, 0.05 -> mean 0.1375."""
    metrics = ratio_metrics(f64(1.0, 1.2, 0.7, 1.05).log(), 0.1)
    assert_close(float(metrics["ratio_deviation"]), 0.1375)
    assert [float(metrics[name]) for name in ("clip_ratio", "clip_ratio/high", "clip_ratio/low")] == [0.5, 0.25, 0.25]
    squares = [math.log(rho) ** 2 for rho in (1.0, 1.2, 0.7, 1.05)]
    assert_close(float(metrics["approx_kl"]), sum(squares) / 8)


def test_ratio_metrics_see_deviations_of_float32s_last_digits():
    """1e-9 is lost in exp(x) in float32, where the next number above 1 is 1.2e-7 away."""
    metrics = ratio_metrics(torch.full((3,), 1e-9), 1e-4)
    assert_close(float(metrics["ratio_deviation"]), 1e-9, rtol=1e-5, atol=0)
