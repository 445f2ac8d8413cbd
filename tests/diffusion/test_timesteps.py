"""Schedules, the shift, and the densities of training times."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion import timesteps
from diffusion.config import DiscreteTimes, LogitNormalTimes, UniformTimes
from diffusion.strata import discrete_strata

SD35 = [1, 0.960129, 0.913349, 0.857692, 0.790368, 0.707278, 0.602151, 0.464876, 0.278049, 0.008929, 0]
FLUX_512 = [1, 0.903736, 0.789705, 0.652489, 0.484218, 0.273003, 0]


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- schedules -------------------------------------------------------------------------------------------------------


def test_shift_by_hand():
    """s = 3, t = 1/2: 1.5 / (1 + 1) = 3/4; the ends stay."""
    assert_close(timesteps.shift(f64(0, 0.5, 1), 3.0), f64(0, 0.75, 1), rtol=0, atol=0)


def test_double_shift_of_sd35():
    """The published schedule of 10 steps; a single shift of 1/1000 would end at 0.0030 instead of 0.0089."""
    assert_close(timesteps.flow_match_sigmas(10, 3.0), f64(*SD35), rtol=0, atol=6e-7)  # six printed digits


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 28, 40])
@pytest.mark.parametrize("factor", [1.0, 3.0, 5.0])
def test_static_schedule_equals_diffusers(steps, factor):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=factor)
    scheduler.set_timesteps(steps)
    # diffusers rounds to float32 twice: 1e-7 relative each, and the first shift's error is shifted again
    assert_close(timesteps.flow_match_sigmas(steps, factor).float(), scheduler.sigmas, rtol=5e-6, atol=0)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_dynamic_schedule_equals_diffusers(tokens):
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 6, 6), mu=mu)
    assert_close(timesteps.flux_sigmas(6, tokens).float(), scheduler.sigmas, rtol=1e-6, atol=0)


def test_dynamic_schedule_of_flux_at_512_pixels():
    """L = 1024: mu = 0.5 + 0.65 * 768 / 3840 = 0.63."""
    assert_close(torch.tensor(timesteps.flux_shift(1024)).log(), torch.tensor(0.63))
    assert_close(timesteps.flux_sigmas(6, 1024), f64(*FLUX_512), rtol=0, atol=6e-7)


@given(steps=st.integers(1, 60), factor=st.floats(0.5, 8), tokens=st.integers(64, 8192))
def test_schedules_fall_from_exactly_one_to_zero(steps, factor, tokens):
    for sigmas in (timesteps.flow_match_sigmas(steps, factor), timesteps.flux_sigmas(steps, tokens)):
        assert sigmas[0] == 1
        assert sigmas[-1] == 0
        assert len(sigmas) == steps + 1
        assert (sigmas.diff() < 0).all()


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="at least one step, found 0"):
        timesteps.flow_match_sigmas(0, 3.0)


# --- densities -------------------------------------------------------------------------------------------------------


def test_discrete_times_by_hand():
    """5 steps at 1, .8, .6, .4, .2, until 1: strata [1, 3) and [3, 5).

    u = 0 and 0.5 of the first pick indices 1 and 2 (0.8, 0.6); u = 0.49 and 0.99 of the second pick 3 and 4 (0.4, 0.2).
    """
    sigmas = f64(1, 0.8, 0.6, 0.4, 0.2, 0)
    times = timesteps.discrete_times(torch.stack([f64(0, 0.5), f64(0.49, 0.99)]), sigmas, until=1.0)
    assert_close(times, torch.stack([f64(0.8, 0.6), f64(0.4, 0.2)]), rtol=0, atol=0)


@given(
    steps=st.integers(8, 50),
    draws=st.integers(1, 6),
    initial=st.sampled_from(["skip", "allow", "always"]),
    seed=st.integers(0, 2**16),
)
def test_discrete_times_stay_in_their_strata(steps, draws, initial, seed):
    sigmas = timesteps.flow_match_sigmas(steps, 3.0)
    uniforms = torch.rand(draws, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    uniforms[:, 0], uniforms[:, 1] = 0, 1 - 2**-53  # both ends of [0, 1)
    times = timesteps.discrete_times(uniforms, sigmas, initial=initial)
    for row, (lower, upper) in zip(times, discrete_strata(steps, draws, initial), strict=True):
        assert set(row.tolist()) <= set(sigmas[lower:upper].tolist())
        assert row[0] == sigmas[lower]
        assert row[1] == sigmas[upper - 1]


def test_uniform_times_by_hand():
    """T = 2, lowest 0.2, shift 3: u = 0 gives strata at 0 and 1/2 -> t = 0.2 and 0.6
    -> 0.6/1.4 = 3/7 and 1.8/2.2 = 9/11.
    """
    times = timesteps.uniform_times(f64(0, 0)[:, None], lowest=0.2, shift_factor=3.0)
    assert_close(times, f64(3 / 7, 9 / 11)[:, None])


def test_logit_normal_times_by_hand():
    """T = 2: u = (1, 0) gives (k + u) / 2 = 1/2, 1/2 -> normal 0 -> sigmoid 1/2 -> shift 3 -> 3/4;
    u = 0 in the first stratum gives 0.
    """
    times = timesteps.logit_normal_times(torch.stack([f64(1, 0), f64(0, 0)]), lowest=0.01)
    assert_close(times, torch.stack([f64(0.75, 0.01), f64(0.75, 0.75)]))


@given(draws=st.integers(1, 8), shift_factor=st.floats(1, 5), seed=st.integers(0, 2**16))
def test_continuous_times_are_stratified_and_in_range(draws, shift_factor, seed):
    """Undoing the shift gives one value in each of T equal parts."""
    uniforms = torch.rand(draws, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    times = timesteps.uniform_times(uniforms, lowest=0.2, shift_factor=shift_factor)
    raw = (timesteps.shift(times, 1 / shift_factor) - 0.2) / 0.8
    assert ((raw * draws - uniforms - torch.arange(draws)[:, None]).abs() < 1e-9).all()
    normal = timesteps.logit_normal_times(uniforms, shift_factor=shift_factor)
    assert ((normal >= 0.01) & (normal <= 1)).all()
    assert (normal.diff(dim=0) >= 0).all()


def test_logit_normal_has_its_quantiles():
    """On an even grid of 9999 u the median of sigmoid(N(mean, std)) is sigmoid(mean),
    and 15.87 % lie below sigmoid(mean - std).
    """
    uniforms = ((torch.arange(9999, dtype=torch.float64) + 0.5) / 9999)[None]
    times = timesteps.logit_normal_times(uniforms, mean=0.3, std=0.8, shift_factor=1.0, lowest=0.0)[0]
    assert_close(times.median(), f64(0.3).sigmoid()[0], rtol=0, atol=1e-9)
    assert abs((times < f64(0.3 - 0.8).sigmoid()).double().mean() - 0.158655) < 2e-4  # grid of 1e-4


# --- keyed draws -----------------------------------------------------------------------------------------------------

CONFIGS = [DiscreteTimes(), DiscreteTimes(initial="always"), UniformTimes(), LogitNormalTimes()]
SIGMAS = timesteps.flow_match_sigmas(14, 3.0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_draws_do_not_depend_on_how_rows_are_cut(config):
    """Any order and any cut of the rows gives every row the same times: processes and micro-batches do not matter."""
    whole = timesteps.draw_times(config, SIGMAS, torch.arange(24), 4, 7, 3, "train_times")
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    parts = [timesteps.draw_times(config, SIGMAS, part, 4, 7, 3, "train_times") for part in order.split([5, 1, 18])]
    assert_close(torch.cat(parts, dim=1), whole[:, order], rtol=0, atol=0)
    assert whole.shape == (6, 24)


@pytest.mark.parametrize("config", [DiscreteTimes(), LogitNormalTimes()], ids=lambda c: c.kind)
def test_a_block_shares_its_times_and_blocks_differ(config):
    times = timesteps.draw_times(config, SIGMAS, torch.arange(40), 4, 0)
    blocks = times.reshape(6, 10, 4)
    assert (blocks == blocks[:, :, :1]).all()
    assert len(torch.unique(blocks[:, :, 0], dim=1).T) > 1


def test_uniform_times_differ_between_the_samples_of_a_block():
    times = timesteps.draw_times(UniformTimes(), SIGMAS, torch.arange(4), 4, 0)
    assert len(torch.unique(times, dim=1).T) == 4


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_the_dtype_of_the_schedule_and_follow_the_key(config, dtype):
    def draw(*key):
        return timesteps.draw_times(config, SIGMAS.to(dtype), torch.arange(8), 2, *key)

    assert draw(1, 2).dtype == dtype
    assert_close(draw(1, 2), draw(1, 2), rtol=0, atol=0)
    assert not torch.equal(draw(1, 2), draw(2, 1))


def test_settings_reach_the_densities():
    """lowest = 0.5 before shift 1 keeps all times above 0.5;
    a logit-normal with mean 4 and std 0.1 stays near sigmoid(4) = 0.982.
    """
    uniform = timesteps.draw_times(UniformTimes(lowest=0.5, shift=1.0, draws=3), SIGMAS, torch.arange(50), 1, 0)
    assert uniform.shape == (3, 50)
    assert uniform.min() >= 0.5
    normal = timesteps.draw_times(LogitNormalTimes(mean=4.0, std=0.1, shift=1.0), SIGMAS, torch.arange(50), 1, 0)
    assert (normal - 0.982).abs().max() < 0.01
    early = timesteps.draw_times(DiscreteTimes(until=0.5, draws=2), SIGMAS, torch.arange(50), 1, 0)
    assert early.min() >= SIGMAS[6]
