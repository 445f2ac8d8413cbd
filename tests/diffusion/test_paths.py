"""Conversions along the flow path and the diffusion path."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion import paths

X0 = torch.tensor([[2.0, -1.0]])
EPS = torch.tensor([[4.0, 3.0]])


def test_flow_path_by_hand():
    """x_0 = (2, -1), eps = (4, 3), t = 1/4: x_t = 3/4 x_0 + 1/4 eps = (2.5, 0), v = eps - x_0 = (2, 4).

    Back: x_t - t v = (2.5 - 0.5, 0 - 1) = (2, -1);  x_t + 3/4 v = (2.5 + 1.5, 0 + 3) = (4, 3);
    score = -eps / t = (-16, -12)
    """
    x, v = paths.noised(X0, EPS, 0.25), paths.target_velocity(X0, EPS)
    assert_close(x, torch.tensor([[2.5, 0.0]]), rtol=0, atol=0)
    assert_close(v, torch.tensor([[2.0, 4.0]]), rtol=0, atol=0)
    assert_close(paths.clean_from_velocity(x, v, 0.25), X0, rtol=0, atol=0)
    assert_close(paths.noise_from_velocity(x, v, 0.25), EPS, rtol=0, atol=0)
    assert_close(paths.score_from_velocity(x, v, 0.25), torch.tensor([[-16.0, -12.0]]), rtol=0, atol=0)


def test_direction_of_time():
    """t = 1 is noise, t = 0 is the clean latent, and v = dx/dt points from clean to noise."""
    assert_close(paths.noised(X0, EPS, 1.0), EPS, rtol=0, atol=0)
    assert_close(paths.noised(X0, EPS, 0.0), X0, rtol=0, atol=0)
    slope = (paths.noised(X0, EPS, 0.75) - paths.noised(X0, EPS, 0.5)) / 0.25
    assert_close(slope, paths.target_velocity(X0, EPS), rtol=0, atol=0)


@given(t=st.floats(0.01, 0.99), seed=st.integers(0, 2**16))
def test_every_conversion_comes_back(t, seed):
    source = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 2, 4, 4, generator=source, dtype=torch.float64)
    x, v = paths.noised(clean, noise, t), paths.target_velocity(clean, noise)
    assert_close(paths.clean_from_velocity(x, v, t), clean)
    assert_close(paths.noise_from_velocity(x, v, t), noise)
    assert_close(paths.velocity_from_clean(x, clean, t), v)
    assert_close(paths.velocity_from_noise(x, noise, t), v)
    assert_close(paths.score_from_velocity(x, v, t), -noise / t)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2), (3, 4, 2, 2), (3, 4, 2, 2, 2)])
def test_one_time_a_row_equals_a_loop_over_rows(shape):
    clean, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 1.0])
    rows = [paths.noised(clean[i : i + 1], noise[i : i + 1], float(t[i])) for i in range(3)]
    assert_close(paths.noised(clean, noise, t), torch.cat(rows), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.3, torch.tensor(0.3), torch.tensor([0.3], dtype=torch.float64)])
def test_dtype_of_the_latents_is_kept(dtype, t):
    x = torch.ones(1, 2, dtype=dtype)
    assert paths.noised(x, x, t).dtype == dtype
    assert paths.clean_from_velocity(x, x, t).dtype == dtype
    assert paths.ddpm_noised(x, x, t).dtype == dtype


def test_wrong_number_of_times_says_what_was_expected():
    with pytest.raises(ValueError, match=r"each of the 3 rows; found shape \(2,\)"):
        paths.per_row(torch.tensor([0.1, 0.2]), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"found shape \(3, 1\)"):
        paths.per_row(torch.full((3, 1), 0.1), torch.zeros(3, 4))


def test_diffusion_path_by_hand():
    """abar = 0.64: x = 0.8 x_0 + 0.6 eps = (1.6 + 2.4, -0.8 + 1.8) = (4, 1)."""
    assert_close(paths.ddpm_noised(X0, EPS, 0.64), torch.tensor([[4.0, 1.0]]))


@given(abar=st.floats(0.01, 0.99))
def test_all_prediction_types_describe_the_same_ends(abar):
    """The outputs of three networks that know x_0 and eps: eps, sqrt(abar) eps - sqrt(1 - abar) x_0, and x_0."""
    clean, noise = X0.double(), EPS.double()
    x = paths.ddpm_noised(clean, noise, abar)
    outputs = {"epsilon": noise, "v_prediction": abar**0.5 * noise - (1 - abar) ** 0.5 * clean, "sample": clean}
    assert outputs.keys() == paths.DDPM_PREDICTIONS.keys()
    for kind, output in outputs.items():
        ends = paths.ddpm_clean_and_noise(x, output, abar, kind)
        assert_close(ends.clean, clean)
        assert_close(ends.noise, noise)


def test_unknown_prediction_type_lists_the_known_ones():
    with pytest.raises(ValueError, match="'epsilon', 'sample', 'v_prediction'"):
        paths.ddpm_clean_and_noise(X0, X0, 0.5, "flow_prediction")
