"""Step rules and their log-probabilities: published numbers, exact identities, diffusers."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.paths import noised, target_velocity
from diffusion.samplers import cps_step, dance_sde_step, ddim_step, flow_sde_step, ode_step
from diffusion.step import gaussian_log_prob, rows
from diffusion.timesteps import flow_match_sigmas

NOISY = [flow_sde_step, dance_sde_step, cps_step]
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def coefficients(rule, *times, **options):
    """(factor of x, factor of v, std) of a rule, read off unit inputs."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    of_x = rule(one, zero, *times, noise=zero, **options)
    of_v = rule(zero, one, *times, noise=zero, **options)
    return float(of_x.mean), float(of_v.mean), float(of_x.std)


# --- worked numbers --------------------------------------------------------------------------------------------------


def test_flow_sde_by_hand():
    """t = 0.6 -> 0.45, a = 0.7: g^2 = 0.49 * 0.6/0.4 = 0.735, g = 0.857321, dt = -0.15.

    x: 1 - 0.735/1.2 * 0.15 = 0.908125;  v: -(1 + 0.735 * 0.4/1.2) * 0.15 = -0.18675;
    std: 0.857321 sqrt(0.15) = 0.332039
    """
    of_x, of_v, std = coefficients(flow_sde_step, 0.6, 0.45, noise_level=0.7)
    assert of_x == pytest.approx(0.908125, abs=1e-12)
    assert of_v == pytest.approx(-0.18675, abs=1e-12)
    assert std == pytest.approx(0.332039, abs=5e-7)


def test_flow_sde_first_step_by_hand():
    """t = 1 -> 0.960129 (SD3.5, 10 steps): g = 0.7 sqrt(1/(1 - 0.960129)) = 3.506,
    x: 1 - 3.506^2/2 * 0.039871 = 0.755.
    """
    of_x, _, std = coefficients(flow_sde_step, 1.0, 0.960129, noise_level=0.7, t_second=0.960129)
    assert of_x == pytest.approx(0.755, abs=5e-4)
    assert std / math.sqrt(1 - 0.960129) == pytest.approx(3.506, abs=5e-4)


def test_flow_sde_noise_of_the_sd35_schedule():
    """Published transition noise of 10 steps at a = 0.7; the second step is noisier than the first."""
    sigmas = flow_match_sigmas(10, 3.0).tolist()
    stds = [
        coefficients(flow_sde_step, t, t_next, noise_level=0.7, t_second=sigmas[1])[2] for t, t_next in pairwise(sigmas)
    ]
    published = [0.700, 0.743, 0.536, 0.446, 0.392, 0.353, 0.319, 0.282, 0.225, 0.0063]
    assert stds == pytest.approx(published, abs=6e-4)


def test_dance_sde_by_hand():
    """t = 0.5 -> 0.4, eta = 0.3, x = 1, v = 0: x0 = 1, so (x - 0.5 x0)/0.25 = 2; mean = 1 + 0.045 * 2 * (-0.1) = 0.991.

    x = 0, v = 1: x0 = -0.5, so (0 + 0.25)/0.25 = 1; mean = (1 + 0.045) * (-0.1) = -0.1045.
    std = 0.3 sqrt(0.1) = 0.094868
    """
    of_x, of_v, std = coefficients(dance_sde_step, 0.5, 0.4, noise_level=0.3)
    assert (of_x, of_v, std) == pytest.approx((0.991, -0.1045, 0.0948683298), abs=1e-9)


def test_cps_by_hand():
    """t = 0.6 -> 0.45, a = 0.8: std = 0.45 sin(0.4 pi) = 0.427975, factor of eps = sqrt(0.45^2 - std^2) = 0.139058.

    x = 1, v = 0 has x0 = eps = 1: 0.55 + 0.139058.  x = 0, v = 1 has x0 = -0.6, eps = 0.4: -0.33 + 0.0556232.
    """
    of_x, of_v, std = coefficients(cps_step, 0.6, 0.45, noise_level=0.8)
    assert std == pytest.approx(0.427975, abs=5e-7)
    assert of_x == pytest.approx(0.55 + 0.139058, abs=5e-7)
    assert of_v == pytest.approx(-0.33 + 0.0556232, abs=5e-7)


def sd_alphas():
    """Cumulative products of the Stable Diffusion betas:
    squares of an even grid between sqrt(0.00085) and sqrt(0.012).
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


@pytest.mark.parametrize(("t", "t_prev", "std"), [(981, 961, 0.454463), (1, 0, 0.020648)])
def test_ddim_noise_of_stable_diffusion(t, t_prev, std):
    """50 steps, eta 1; the last step goes to discrete time 0 and still has noise."""
    alphas, x = sd_alphas(), torch.zeros(1, 4, dtype=torch.float64)
    step = ddim_step(x, x, alphas[t], alphas[t_prev], prediction_type="epsilon", noise=x)
    assert float(step.std) == pytest.approx(std, abs=5e-7)


# --- identities ------------------------------------------------------------------------------------------------------


@given(t=st.floats(0.05, 1), share=st.floats(0, 0.95), seed=st.integers(0, 2**16))
def test_without_noise_every_rule_is_the_euler_step(t, share, seed):
    """flow_sde and dance_sde exactly, bit for bit; cps to rounding: it adds two predictions instead."""
    x, v = randn(2, 3, 4, 4, seed=seed, dtype=torch.float32)
    euler = ode_step(x, v, t, t * share)
    assert_close(euler.prev_sample, x + (t * share - t) * v)
    for rule in NOISY:
        step = rule(x, v, t, t * share, noise_level=0.0)
        tolerance = 4e-6 if rule is cps_step else 0
        assert_close(step.prev_sample, euler.prev_sample, rtol=0, atol=tolerance)
        assert (step.log_prob == 0).all()
        assert (step.std == 0).all()


@pytest.mark.parametrize("elements", [4, 1024])
def test_log_prob_of_the_own_mean_does_not_depend_on_size(elements):
    """-ln std - ln(2 pi)/2 at the mean, 0.5 less one std away in every element;
    the sum is `elements` times the mean.
    """
    x, v = randn(2, 3, elements)
    step = flow_sde_step(x, v, 0.6, 0.45, noise=torch.zeros_like(x))
    assert_close(step.log_prob, -step.std.log() - HALF_LOG_TWO_PI)
    away = flow_sde_step(x, v, 0.6, 0.45, prev_sample=step.mean + step.std[:, None])
    assert_close(away.log_prob, step.log_prob - 0.5)
    total = flow_sde_step(x, v, 0.6, 0.45, prev_sample=away.prev_sample, reduce="sum")
    assert_close(total.log_prob, elements * away.log_prob)


def test_log_prob_agrees_with_torch_distributions():
    value, mean, std = randn(5, 2, 3), randn(5, 2, 3, seed=1), torch.linspace(0.1, 2, 5, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, std[:, None, None]).log_prob(value).mean((1, 2))
    assert_close(gaussian_log_prob(value, mean, std), expected)


def test_cps_log_prob_leaves_constants_out():
    """x_next - mean = std * noise, so the log-probability is -mean(std^2 noise^2),
    without 1 / (2 std^2) and -ln std.
    """
    x, v, noise = randn(3, 2, 3, 4)
    step = cps_step(x, v, 0.6, 0.45, noise=noise)
    assert_close(step.log_prob, -(step.std**2) * (noise**2).mean((1, 2)))
    assert_close(cps_step(x, v, 0.6, 0.45, noise=noise, reduce="sum").log_prob, 12 * step.log_prob)


@pytest.mark.parametrize("rule", NOISY)
def test_steps_at_both_ends_are_finite(rule):
    """t = 1 needs the schedule's second time (flow_sde), t_next = 0 leaves cps without noise."""
    x, v, noise = randn(3, 2, 5, dtype=torch.float32)
    guard = {"t_second": 0.96} if rule is flow_sde_step else {}
    for times in [(1.0, 0.96), (0.0089, 0.0)]:
        step = rule(x, v, *times, noise=noise, **guard)
        assert step.prev_sample.isfinite().all()
        assert step.log_prob.isfinite().all()


@pytest.mark.parametrize("rule", NOISY)
def test_mixed_steps_equal_a_loop_over_rows(rule):
    x, v, noise = randn(3, 4, 2, 3)
    t, t_next, level = torch.tensor([[1.0, 0.9, 0.6, 0.01], [0.9, 0.6, 0.01, 0.0], [0.7, 0.0, 0.3, 0.1]]).double()
    guard = {"t_second": 0.9} if rule is flow_sde_step else {}
    whole = rule(x, v, t, t_next, noise_level=level, noise=noise, **guard)
    for i in range(4):
        own = slice(i, i + 1)
        options = {"noise_level": float(level[i]), "noise": noise[own], **guard}
        row = rule(x[own], v[own], float(t[i]), float(t_next[i]), **options)
        for name in ("prev_sample", "mean", "std", "log_prob"):
            assert_close(getattr(whole, name)[own], getattr(row, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", NOISY)
def test_replaying_a_stored_step_gives_the_stored_log_prob(rule):
    """The ratio of an unchanged policy is exactly 1, also through latents that were stored as float16."""
    x, v, noise = randn(3, 2, 16, dtype=torch.float32)
    stored = rule(x, v, 0.6, 0.45, noise=noise).prev_sample.half()
    then = rule(x, v, 0.6, 0.45, prev_sample=stored)
    now = rule(x, v, 0.6, 0.45, prev_sample=stored)
    assert torch.equal(then.log_prob, now.log_prob)
    sampled = rule(x, v, 0.6, 0.45, noise=noise)
    again = rule(x, v, 0.6, 0.45, prev_sample=sampled.prev_sample)
    assert torch.equal(sampled.log_prob, again.log_prob)


@given(t=st.floats(0.1, 0.95), share=st.floats(0.05, 0.95), level=st.floats(0.1, 1.0))
def test_noise_level_after_a_step_on_point_mass_data(t, share, level):
    """Data is one point x0, x = (1-t) x0 + t z with its exact velocity: the result is affine in z with slope s, and

    flow_sde: s^2 + std^2 = t'^2 + g^2 dt^2/t + g^4 dt^2/(4 t^2), an excess;   cps: s^2 + std^2 = t'^2 exactly.
    The mean at z = 0 is (1 - t') x0 for both.
    """
    t_next, dt = t * share, t * share - t
    clean, z = torch.full((2, 1), 3.0, dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x, v = noised(clean, z, t), target_velocity(clean, z)
    spread = {}
    for rule in (flow_sde_step, cps_step):
        step = rule(x, v, t, t_next, noise_level=level, noise=torch.zeros_like(x))
        assert float(step.mean[0]) == pytest.approx((1 - t_next) * 3.0)
        spread[rule] = float((step.mean[1] - step.mean[0]) ** 2 + step.std[0] ** 2)
    g2 = level**2 * t / (1 - t)
    assert spread[cps_step] == pytest.approx(t_next**2)
    assert spread[flow_sde_step] == pytest.approx(t_next**2 + g2 * dt**2 / t + g2**2 * dt**2 / (4 * t**2))


def spread_after(rule, steps, data_std=0.5, **options):
    """Std of the clean latents for Gaussian data on an even schedule:
    all is linear in x, so it is propagated exactly.
    """
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    one, variance = torch.ones(1, 1, dtype=torch.float64), 1.0
    for t, t_next in pairwise(sigmas):
        total = (1 - t) ** 2 * data_std**2 + t**2
        clean = (1 - t) * data_std**2 / total * one  # E[x0 | x] at x = 1
        step = rule(one, (one - clean) / t, t, t_next, **options)
        variance = float(step.mean) ** 2 * variance + float(step.std) ** 2
    return math.sqrt(variance)


def noisy_spread_after(rule, steps, **options):
    return spread_after(rule, steps, noise=torch.zeros(1, 1, dtype=torch.float64), **options)


def test_marginals_of_gaussian_data_at_ten_and_at_many_steps():
    """True std 0.5: published 0.431 (ODE) and 0.480 (a = 0.7) after 10 even steps; within 0.5 % after 400."""
    assert spread_after(ode_step, 10) == pytest.approx(0.431, abs=5e-4)
    assert noisy_spread_after(flow_sde_step, 10, t_second=0.9) == pytest.approx(0.480, abs=5e-4)
    assert spread_after(ode_step, 400) == pytest.approx(0.5, abs=2.5e-3)
    assert noisy_spread_after(flow_sde_step, 400, t_second=0.9975) == pytest.approx(0.5, abs=2.5e-3)
    assert noisy_spread_after(dance_sde_step, 400) == pytest.approx(0.5, abs=2.5e-3)


@given(seed=st.integers(0, 2**16), elements=st.integers(1, 6))
def test_expected_log_ratio_is_minus_the_kl_per_element(seed, elements):
    """E_old[log rho] = -mean((mean - mean_old)^2) / (2 std^2) < 0: the bias of ratios;
    the expectation is Gauss-Hermite, so exact.
    """
    from numpy.polynomial.hermite_e import hermegauss

    x, v, v_new = randn(3, 1, elements, seed=seed)
    old = flow_sde_step(x, v, 0.6, 0.45, noise=torch.zeros_like(x))
    new = flow_sde_step(x, v_new, 0.6, 0.45, noise=torch.zeros_like(x))
    expected = 0.0
    for node, weight in zip(*hermegauss(5), strict=True):
        taken = old.mean + old.std[:, None] * float(node)
        ratio = [flow_sde_step(x, w, 0.6, 0.45, prev_sample=taken).log_prob for w in (v_new, v)]
        expected += float(weight) / math.sqrt(2 * math.pi) * float(ratio[0] - ratio[1])
    assert expected == pytest.approx(-float(((new.mean - old.mean) ** 2).mean() / (2 * old.std**2)), rel=1e-8)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", NOISY)
def test_gradient_of_the_log_prob_by_finite_differences(rule):
    x, v, taken = randn(3, 2, 3)
    v.requires_grad_()
    guard = {"t_second": 0.9} if rule is flow_sde_step else {}
    for times in [(0.6, 0.45), (1.0, 0.9)]:
        assert torch.autograd.gradcheck(lambda w, at=times: rule(x, w, *at, prev_sample=taken, **guard).log_prob, v)


@pytest.mark.parametrize("rule", NOISY)
def test_a_sampled_step_counts_as_constant(rule):
    """The gradient of a sampled step's log-probability is that of the stored one:
    it does not flow through the sample.
    """
    x, v, noise = randn(3, 2, 3)
    v.requires_grad_()
    sampled = rule(x, v, 0.6, 0.45, noise=noise)
    stored = rule(x, v, 0.6, 0.45, prev_sample=sampled.prev_sample.detach())
    gradients = [torch.autograd.grad(step.log_prob.sum(), v)[0] for step in (sampled, stored)]
    assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().min() > 0


def test_rows_without_noise_have_a_gradient_of_zero_not_nan():
    x, v, noise = randn(3, 2, 3)
    v.requires_grad_()
    level = torch.tensor([0.0, 0.7])
    step = flow_sde_step(x, v, 0.6, 0.45, noise_level=level, noise=noise)
    (gradient,) = torch.autograd.grad(step.log_prob.sum(), v)
    assert (gradient[0] == 0).all()
    assert gradient[1].abs().min() > 0


# --- DDIM against diffusers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_equals_diffusers(prediction_type, eta):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    scheduler.set_timesteps(50)
    x, output, noise = randn(3, 2, 4, 4, 4, dtype=torch.float32)
    alphas = scheduler.alphas_cumprod
    for t in (981, 501, 1):
        theirs = scheduler.step(output, t, x, eta=eta, variance_noise=noise if eta else None).prev_sample
        own = ddim_step(
            x, output, alphas[t], alphas[max(t - 20, 0)], prediction_type=prediction_type, eta=eta, noise=noise
        )
        # sample predictions divide by sqrt(1 - abar) = 0.04 at t = 1: float32 rounding, times 25
        assert_close(own.prev_sample, theirs, rtol=2e-5, atol=2e-5)


def test_ddim_without_noise_has_a_log_prob_of_zero():
    x = randn(2, 3)
    step = ddim_step(x, x, 0.3, 0.5, prediction_type="epsilon", eta=0.0)
    assert (step.log_prob == 0).all()


def test_ddim_to_the_clean_image_is_finite_at_full_eta():
    """abar_prev = 1: the variance is 0 and rounding must not take the root of a negative number."""
    x = randn(2, 3, dtype=torch.float32)
    assert ddim_step(x, x, 0.9, 1.0, prediction_type="epsilon", eta=1.0).prev_sample.isfinite().all()


# --- precision and errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_widened_first(dtype):
    x, v, noise = randn(3, 2, 8, dtype=torch.float32).to(dtype)
    step = flow_sde_step(x, v, 0.6, 0.45, noise=noise)
    wide = flow_sde_step(x.float(), v.float(), 0.6, 0.45, noise=noise.float())
    for name in ("prev_sample", "mean", "std", "log_prob"):
        assert getattr(step, name).dtype == torch.float32
        assert torch.equal(getattr(step, name), getattr(wide, name))


def test_errors_say_what_to_do():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="hand in `noise`"):
        flow_sde_step(x, x, 0.6, 0.45)
    with pytest.raises(ValueError, match="found both"):
        flow_sde_step(x, x, 0.6, 0.45, noise=x, prev_sample=x)
    with pytest.raises(ValueError, match="hand in `t_second`"):
        flow_sde_step(x, x, 1.0, 0.9, noise=x)
    with pytest.raises(ValueError, match="not multiplied by 1000"):
        ode_step(x, x, 600.0, 450.0)
    with pytest.raises(ValueError, match="0 <= t_next < t"):
        ode_step(x, x, 0.4, 0.5)
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        flow_sde_step(x, x, 0.6, 0.45, noise=x, reduce="median")
    with pytest.raises(ValueError, match="each of 2 rows"):
        rows(torch.tensor([0.6, 0.5, 0.4]), x)
    with pytest.raises(ValueError, match="abar < abar_prev"):
        ddim_step(x, x, 0.5, 0.3, prediction_type="epsilon", noise=x)
