"""SA-Solver: coefficients against quadrature, the sampler against a literal loop, marginals of Gaussian data."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch.testing import assert_close

from diffusion.paths import clean_from_velocity
from diffusion.sa_solver import log_signal_to_noise, sa_solver_sample, sa_solver_times, tau_window, transition
from diffusion.samplers import ode_step
from diffusion.timesteps import flow_match_sigmas

TAUS = [0.0, 0.4, 1.0]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the time grid ---------------------------------------------------------------------------------------------------


def test_grid_of_the_released_configuration():
    """14 steps, shift 3: starts at 0.999, and the last time above 0 is half of the one before:
    0.2062 / 2 = 0.1031, not 0.0089.
    """
    sigmas = flow_match_sigmas(14, 3.0)
    times = sa_solver_times(sigmas)
    assert times[0] == 0.999
    assert times[-1] == 0
    assert float(times[-2]) == pytest.approx(0.1031, abs=5e-5)
    assert_close(times[1:-2], sigmas[1:-2], rtol=0, atol=0)
    assert sigmas[0] == 1, "the schedule that was handed in must stay as it was"


def test_short_grids():
    """Two steps: 0.999, 0.999/2, 0. One step: 0.999, 0."""
    assert sa_solver_times(flow_match_sigmas(2, 3.0)).tolist() == [0.999, 0.4995, 0]
    assert sa_solver_times(flow_match_sigmas(1, 3.0)).tolist() == [0.999, 0]


def test_a_schedule_that_is_too_fine_for_the_first_time_is_an_error():
    with pytest.raises(ValueError, match="use fewer steps"):
        sa_solver_times(flow_match_sigmas(600, 3.0))


@pytest.mark.parametrize("bad", [[0.9, 0.5, 0.0], [1.0, 0.5, 0.1], [1.0, 0.5, 0.5, 0.0], [1.0]])
def test_what_is_no_schedule_is_an_error(bad):
    with pytest.raises(ValueError, match="decreases from 1 to 0"):
        sa_solver_times(torch.tensor(bad))


def test_tau_window_includes_both_ends():
    tau = tau_window(0.4, 0.3, 0.9)
    assert [tau(t) for t in (0.95, 0.9, 0.5, 0.3, 0.29)] == [0, 0.4, 0.4, 0.4, 0]


# --- coefficients ----------------------------------------------------------------------------------------------------


def by_quadrature(s, t, nodes, tau):
    """q t e^(-tau^2 l_t) * integral over [l_s, l_t] of e^(q l) * Lagrange basis, straight from the definition."""
    q, points = 1 + tau**2, [log_signal_to_noise(node) for node in nodes]
    start, end = log_signal_to_noise(s), log_signal_to_noise(t)

    def basis(i, x):
        return math.prod((x - p) / (points[i] - p) for j, p in enumerate(points) if j != i)

    scale = q * t * math.exp(-(tau**2) * end)
    return [
        scale * quad(lambda x, i=i: math.exp(q * x) * basis(i, x), start, end, epsabs=1e-13, epsrel=1e-12)[0]
        for i in range(len(nodes))
    ]


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize(
    ("s", "t", "nodes"),
    [
        (0.999, 0.97, (0.999,)),
        (0.5, 0.45, (0.5,)),
        (0.97, 0.9, (0.97, 0.999)),
        (0.5, 0.3, (0.5, 0.8)),
        (0.2, 0.01, (0.2, 0.3)),
        (0.9, 0.5, (0.5, 0.9)),
        (0.3, 0.29, (0.29, 0.3)),
    ],
)
def test_coefficients_equal_quadrature(s, t, nodes, tau):
    """1e-8 relative to the largest: order 2 subtracts integrals that nearly cancel when the nodes are close."""
    found, expected = transition(s, t, nodes, tau, few_step=False).data, by_quadrature(s, t, nodes, tau)
    assert found == pytest.approx(expected, abs=1e-8 * max(map(abs, expected)))


@given(s=st.floats(0.02, 0.99), share=st.floats(0.1, 0.97), tau=st.floats(0, 1.5))
def test_coefficients_move_a_known_end_exactly(s, share, tau):
    """If every data prediction is x0, then x_s = (1-s) x0 + s z goes to (1-t) x0 + (t/s) e^(-tau^2 h) s z + noise.

    So the data factors sum to (1-t) - sample * (1-s), with or without the few-step correction, and the variance of
    the noise that is left and the new noise together is t^2.
    """
    t = s * share
    for nodes in [(s,), (s, (1 + s) / 2), (t, s)]:
        for few_step in (True, False):
            rule = transition(s, t, nodes, tau, few_step=few_step)
            assert sum(rule.data) == pytest.approx((1 - t) - rule.sample * (1 - s), abs=1e-9)
            assert (rule.sample * s) ** 2 + rule.noise**2 == pytest.approx(t**2, rel=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_few_step_correction_by_the_published_formula(tau):
    """Predictor d = e^(q lt)[h^2/2 - (qh-1+e^(-qh))/q^2]/(l_s - l_before);
    corrector d = e^(q lt)[h/2 - (qh-1+e^(-qh))/(q^2 h)].

    It moves weight from the older node to the newest, times q t e^(-tau^2 lt).
    """
    before, s, t, q = 0.9, 0.7, 0.5, 1 + tau**2
    l_before, l_s, l_t = (math.log((1 - u) / u) for u in (before, s, t))
    h = l_t - l_s
    bracket = q * h - 1 + math.exp(-q * h)
    scale = q * t * math.exp(-(tau**2) * l_t) * math.exp(q * l_t)
    predictor = scale * (h**2 / 2 - bracket / q**2) / (l_s - l_before)
    corrector = scale * (h / 2 - bracket / (q**2 * h))
    for nodes, d in [((s, before), predictor), ((t, s), corrector)]:
        plain, corrected = (transition(s, t, nodes, tau, few_step=on).data for on in (False, True))
        assert corrected[0] - plain[0] == pytest.approx(d, rel=1e-9)
        assert corrected[1] - plain[1] == pytest.approx(-d, rel=1e-9)


@given(s=st.floats(0.02, 0.99), share=st.floats(0.05, 0.97), seed=st.integers(0, 2**16))
def test_first_order_without_noise_is_the_ddim_step(s, share, seed):
    """(t/s) x + (1-t)(1-e^(-h)) m = (1-t) m + t eps, and that is the Euler step of the velocity."""
    x, v = randn(2, 2, 5, seed=seed)
    rule = transition(s, s * share, (s,), 0.0)
    result = rule.sample * x + rule.data[0] * clean_from_velocity(x, v, s)
    assert rule.noise == 0
    assert_close(result, ode_step(x, v, s, s * share).prev_sample, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("s", "t", "nodes"), [(1.0, 0.5, (1.0,)), (0.5, 0.0, (0.5,)), (0.5, 0.6, (0.5,)), (0.5, 0.4, ())]
)
def test_transitions_outside_the_open_interval_are_errors(s, t, nodes):
    with pytest.raises(ValueError, match="0 < t < s < 1 and one or two nodes"):
        transition(s, t, nodes, 0.0)


# --- the sampler -----------------------------------------------------------------------------------------------------


def bent_velocity(x, t):
    """Some smooth velocity that is neither linear in x nor in t."""
    return torch.tanh(x) * (1 + t) - 0.3 * x**2 * t


def slow_sample(x, times, noises, taus):
    """The algorithm once more: one number at a time, coefficients by quadrature of the definition, no shared code."""

    def lam(t):
        return math.log((1 - t) / t)

    def data(x, t):
        return x - t * float(bent_velocity(torch.tensor(x, dtype=torch.float64), t))

    def move(x, s, t, nodes, values, tau, n):
        q, h = 1 + tau**2, lam(t) - lam(s)
        weights = by_quadrature(s, t, nodes, tau)
        if len(nodes) == 2:
            bracket = (q * h - 1 + math.exp(-q * h)) / q**2
            d = (
                q
                * t
                * math.exp(-(tau**2) * lam(t) + q * lam(t))
                * (h**2 / 2 - bracket)
                / (lam(nodes[0]) - lam(nodes[1]))
            )
            weights = [weights[0] + d, weights[1] - d]
        moved = math.exp(-(tau**2) * h) * (t / s) * x + sum(w * m for w, m in zip(weights, values, strict=True))
        return moved + t * math.sqrt(1 - math.exp(-2 * tau**2 * h)) * n

    values = [data(x, times[0])]
    predicted = move(x, times[0], times[1], times[:1], values, taus[1], noises[0])
    values.append(data(predicted, times[1]))
    x = predicted
    for j in range(1, len(times) - 2):
        s, t = times[j], times[j + 1]
        predicted = move(x, s, t, [s, times[j - 1]], [values[j], values[j - 1]], taus[j + 1], noises[j])
        values.append(data(predicted, t))
        x = move(x, s, t, [t, s], [values[j + 1], values[j]], taus[j + 1], noises[j])
    return values[-1]


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [3, 6])
def test_sampler_equals_a_slow_loop(steps, level):
    times = sa_solver_times(flow_match_sigmas(steps, 3.0))
    tau, x, noises = tau_window(level, 0.3, 0.9), randn(4, 1), randn(steps, 4, 1, seed=1)
    found = sa_solver_sample(bent_velocity, x, times, lambda j: noises[j], tau)
    grid = times.tolist()
    taus = [tau(t) for t in grid]
    for row in range(4):
        expected = slow_sample(float(x[row]), grid, noises[:, row, 0].tolist(), taus)
        assert float(found[row]) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 3, 14])
def test_network_is_called_once_for_each_step_at_the_times_of_the_grid(steps):
    calls = []

    def velocity(x, t):
        calls.append(t)
        return x

    times = sa_solver_times(flow_match_sigmas(steps, 3.0))
    sa_solver_sample(velocity, randn(1, 2), times)
    assert calls == times[:-1].tolist()


def test_noise_is_asked_once_for_each_noisy_transition():
    """14 steps: transition j goes to time j + 1; noise where 0.3 <= time <= 0.9."""
    asked = []

    def noise(j):
        asked.append(j)
        return torch.zeros(1, 2, dtype=torch.float64)

    times = sa_solver_times(flow_match_sigmas(14, 3.0))
    sa_solver_sample(bent_velocity, randn(1, 2), times, noise, tau_window(0.4, 0.3, 0.9))
    assert asked == [j for j, t in enumerate(times[1:-1].tolist()) if 0.3 <= t <= 0.9]
    assert asked


def test_noise_without_a_source_is_an_error():
    times = sa_solver_times(flow_match_sigmas(14, 3.0))
    with pytest.raises(ValueError, match="hand in `noise`"):
        sa_solver_sample(bent_velocity, randn(1, 2), times, None, tau_window(0.4, 0.3, 0.9))


def test_a_perfect_network_returns_the_clean_latents():
    """Velocity towards one point: every data prediction is that point, so the result is it, with noise or without."""
    clean, times = randn(3, 4), sa_solver_times(flow_match_sigmas(5, 3.0))
    found = sa_solver_sample(
        lambda x, t: (x - clean) / t, randn(3, 4, seed=1), times, lambda j: randn(3, 4, seed=2 + j), lambda t: 0.4
    )
    assert_close(found, clean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    times = sa_solver_times(flow_match_sigmas(4, 3.0))
    x = randn(2, 3).to(dtype)
    assert sa_solver_sample(bent_velocity, x, times, lambda j: x, lambda t: 0.4).dtype == dtype


# --- marginals -------------------------------------------------------------------------------------------------------


def spread_after(steps, level, data_std=0.5):
    """Exact std of the result for Gaussian data: linear in the first noise and in each later one,
    so feed unit vectors.
    """

    def velocity(x, t):
        return (x - (1 - t) * data_std**2 / ((1 - t) ** 2 * data_std**2 + t**2) * x) / t

    times = sa_solver_times(flow_match_sigmas(steps, 3.0))
    unit = torch.eye(steps + 1, dtype=torch.float64)[:, :, None]  # row i: the i-th source is 1, all others 0
    result = sa_solver_sample(velocity, unit[0], times, lambda j: unit[j + 1], tau_window(level, 0.3, 0.9))
    return float(result.square().sum().sqrt())


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_marginals_of_gaussian_data_converge_with_noise_and_without(level):
    """True std 0.5: the error at least halves when the steps double, and is below 0.001 at 320 steps."""
    errors = [abs(spread_after(steps, level) - 0.5) for steps in (80, 160, 320)]
    assert errors[2] < 1e-3
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


@settings(max_examples=20)
@given(level=st.floats(0, 1))
def test_noise_reaches_the_result_only_inside_the_window(level):
    """Closed window: the same result as without noise, bit for bit."""
    times = sa_solver_times(flow_match_sigmas(6, 3.0))
    x = randn(2, 3)
    silent = sa_solver_sample(bent_velocity, x, times)
    closed = sa_solver_sample(bent_velocity, x, times, lambda j: randn(2, 3, seed=j), tau_window(level, 2.0, 3.0))
    assert torch.equal(silent, closed)
