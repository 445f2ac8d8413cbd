"""DPM-Solver++(2M) on flows: by hand, against the paper's form in a slow loop, against diffusers, exact cases."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.dpm_solver import dpm_solver_sample, extrapolation
from diffusion.timesteps import flow_match_sigmas


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bent_velocity(x, t):
    """Neither constant nor linear."""
    return torch.sin(3 * x) + (t**2 - 0.3) * x


def slow_sample(x, times):
    """The paper's formula element by element, with h and r written out; first and last step are DDIM steps."""
    log_snr = lambda t: math.log((1 - t) / t)  # noqa: E731
    past = None
    for j, (s, t) in enumerate(pairwise(times)):
        v = float(bent_velocity(torch.tensor(x, dtype=torch.float64), s))
        m, eps = x - s * v, x + (1 - s) * v
        if past is None or t == 0 or times[j - 1] == 1:
            x = (1 - t) * m + t * eps
        else:
            h = log_snr(t) - log_snr(s)
            r = (log_snr(s) - log_snr(times[j - 1])) / h
            x = t / s * x - (1 - t) * (math.exp(-h) - 1) * (m + (m - past) / (2 * r))
        past = m
    return x


def test_extrapolation_by_hand():
    """lambda(0.5) = 0, lambda(0.8) = -ln 4, lambda(0.2) = ln 4: from 0.8 over 0.5 to 0.2 r = 1, so 1/2."""
    assert extrapolation(0.8, 0.5, 0.2) == pytest.approx(0.5, abs=1e-15)
    assert extrapolation(1.0, 0.5, 0.2) == 0


@pytest.mark.parametrize("first", [1.0, 0.98])
@given(start=st.floats(-2, 2), steps=st.integers(1, 9))
def test_equals_a_slow_loop(first, start, steps):
    times = flow_match_sigmas(steps, 3.0).tolist()
    times[0] = first
    found = dpm_solver_sample(bent_velocity, torch.tensor([[start]], dtype=torch.float64), times)
    assert_close(float(found), slow_sample(start, times), rtol=1e-9, atol=1e-11)


def test_one_step_is_a_ddim_step_to_the_data_prediction():
    x = randn(2, 3)
    assert_close(dpm_solver_sample(bent_velocity, x, [0.9, 0.0]), x - 0.9 * bent_velocity(x, 0.9))


def test_two_steps_from_pure_noise_by_hand():
    """v = x: m = x (1 - t), eps = x (2 - t). From 1 at t = 1: m = 0, eps = 1, so x = 1/2 at t = 1/2; then m = 1/4."""
    found = dpm_solver_sample(lambda x, t: x, torch.ones(1, 1, dtype=torch.float64), [1.0, 0.5, 0.0])
    assert_close(found, torch.full((1, 1), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_single_picture_is_found_exactly(steps):
    """Data of one point x0: the exact velocity (x - x0) / t leads there in any number of steps."""
    clean = randn(2, 3)
    found = dpm_solver_sample(lambda x, t: (x - clean) / t, randn(2, 3, seed=1), flow_match_sigmas(steps, 3.0))
    assert_close(found, clean)


def gaussian_velocity(x, t, spread=0.5):
    """Of data N(0, spread^2): v = E[eps - x0 | x_t] = x (t - (1 - t) spread^2) / (t^2 + (1 - t)^2 spread^2)."""
    return x * (t - (1 - t) * spread**2) / (t**2 + (1 - t) ** 2 * spread**2)


def error_on_gaussian(steps):
    """The flow maps x to spread * x (a monotone map between Gaussians), starting at t = 0.99 on the path."""
    times = torch.linspace(0.99, 0.01, steps + 1).tolist()
    spread_at = lambda t: math.sqrt(t**2 + (1 - t) ** 2 * 0.25)  # noqa: E731
    x = torch.full((1, 1), spread_at(times[0]), dtype=torch.float64)
    found = dpm_solver_sample(gaussian_velocity, x, [*times, 0.0])
    exact_before_last = torch.full((1, 1), spread_at(times[-1]), dtype=torch.float64)
    exact = exact_before_last - times[-1] * gaussian_velocity(exact_before_last, times[-1])
    return abs(float(found - exact))


def test_second_order():
    """Twice the steps: the error falls by about 4, clearly more than the 2 of a first-order rule."""
    assert error_on_gaussian(40) / error_on_gaussian(80) > 3


# diffusers hands a torch tensor to an older numpy interface.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_equals_diffusers_scheduler():
    """diffusers' own 2M solver in flow mode on the same schedule, from the second step of which both are second order.

    diffusers' grid ends at 0 with `final_sigmas_type="zero"`, its last step is first order there. It starts below 1.
    """
    steps = 6
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    times = scheduler.sigmas.tolist()
    assert 0.9 < times[0] < 1
    x = start = randn(2, 3).float()
    for j, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(bent_velocity(x, times[j]), timestep, x).prev_sample
    assert_close(dpm_solver_sample(bent_velocity, start, times), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("times", [[1.0], [1.0, 0.5], [0.5, 0.7, 0.0], [1.2, 0.0], [0.5, 0.5, 0.0]])
def test_refuses_what_is_no_schedule(times):
    with pytest.raises(ValueError, match="decreases"):
        dpm_solver_sample(bent_velocity, randn(1, 1), times)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(dtype):
    assert dpm_solver_sample(bent_velocity, randn(2, 2).to(dtype), [1.0, 0.4, 0.0]).dtype == dtype
