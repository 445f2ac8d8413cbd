"""DiffusionNFT's mathematics: by hand, against a slow float64 loop, its fixed points, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion.losses import MODES, implicit_outputs, nft_loss, optimality, self_normalised_error


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("all", [0.0, 0.0, 0.4, 0.5, 0.75, 1.0, 1.0]),
        ("positive_only", [0.5, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0]),
        ("negative_only", [0.0, 0.0, 0.4, 0.5, 0.5, 0.5, 0.5]),
        ("one_only", [0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6]),
        ("binary", [0.4, 0.4, 0.4, 0.5, 0.6, 0.6, 0.6]),
    ],
)
def test_optimality_by_hand(mode, expected):
    """Clip 5: r = A/10 + 1/2. A = -9 -5 -1 0 2.5 5 9; `one_only` and `binary` have |A| = 1, so 0.5 +- 0.1."""
    assert_close(optimality(f64(-9, -5, -1, 0, 2.5, 5, 9), 5.0, mode), f64(*expected))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="one_only"):
        optimality(f64(1.0), 5.0, "some")


def test_implicit_outputs_by_hand():
    """beta 0.5, m = 3, old = 1: m+ = 2, m- = 0. beta 1: m+ = m, m- = 2 old - m."""
    positive, negative = implicit_outputs(f64(3.0), f64(1.0), 0.5)
    assert (positive.item(), negative.item()) == (2.0, 0.0)
    positive, negative = implicit_outputs(f64(3.0), f64(1.0), 1.0)
    assert (positive.item(), negative.item()) == (3.0, -1.0)


@given(beta=st.floats(0.05, 3), seed=st.integers(0, 1000))
def test_the_implicit_outputs_lie_evenly_around_the_old_one(beta, seed):
    output, old = randn(2, 4, 3, seed=seed)
    positive, negative = implicit_outputs(output, old, beta)
    assert_close((positive + negative) / 2, old)


def test_self_normalised_error_by_hand():
    """Differences 3 and -1: mean square 5, mean size 2: 2.5. Equal latents: 0 / 1e-5 = 0."""
    assert_close(self_normalised_error(f64(3.0, -1.0)[None], f64(0.0, 0.0)[None]), f64(2.5))
    assert_close(self_normalised_error(f64(1.0)[None], f64(1.0)[None]), f64(0.0))


def test_the_divisor_is_a_constant():
    """d/dx of x^2 / sg(|x|) at x = 3 is 2, not 1."""
    x = f64(3.0)[None].requires_grad_()
    (slope,) = torch.autograd.grad(self_normalised_error(x, torch.zeros_like(x)).sum(), x)
    assert_close(slope, f64(2.0)[None])


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_self_normalised_error_is_homogeneous(scale, seed):
    """Errors c times as large count c times, not c^2: what makes times comparable."""
    predicted, clean = randn(2, 3, 5, seed=seed)
    whole = self_normalised_error(predicted, clean)
    assert_close(self_normalised_error(scale * predicted, scale * clean), scale * whole, rtol=1e-9, atol=1e-12)


def slow_loss(x_t, t, clean, v, old, advantages, beta, clip):
    """Time by time, sample by sample, from the formulas, in floats."""
    times, samples = t.shape
    losses = []
    for i in range(samples):
        r = min(max(float(advantages[i]) / (2 * clip) + 0.5, 0.0), 1.0)
        terms = []
        for k in range(times):
            errors = []
            for sign in (1, -1):
                if sign == 1:
                    implicit = beta * v[k, i] + (1 - beta) * old[k, i]
                else:
                    implicit = (1 + beta) * old[k, i] - beta * v[k, i]
                difference = x_t[k, i] - float(t[k, i]) * implicit - clean[i]
                size = max(float(difference.abs().mean()), 1e-5)
                errors.append(float((difference**2).mean()) / size)
            terms.append((r * errors[0] + (1 - r) * errors[1]) / beta)
        losses.append(sum(terms) / times)
    return losses


@given(seed=st.integers(0, 2**16), times=st.integers(1, 4), samples=st.integers(1, 4), beta=st.floats(0.1, 2))
def test_loss_equals_a_slow_loop(seed, times, samples, beta):
    v, old, x_t = randn(3, times, samples, 6, seed=seed)
    clean, advantages = randn(samples, 6, seed=seed + 1), 4 * randn(samples, seed=seed + 2)
    t = torch.rand(times, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    errors = [
        self_normalised_error((x_t - t[..., None] * m - clean).flatten(0, 1), torch.zeros(times * samples, 6)).view_as(
            t
        )
        for m in implicit_outputs(v, old, beta)
    ]
    found = nft_loss(*errors, optimality(advantages, 5.0), beta)
    expected = slow_loss(x_t, t, clean, v, old, advantages, beta, 5.0)
    assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-10)


def gradient_in_v(v, old, clean, x_t, t, advantages, beta):
    v = v.clone().requires_grad_()
    errors = [
        self_normalised_error((x_t - t[..., None] * m).flatten(0, 1), clean.repeat(len(t), 1)).view_as(t)
        for m in implicit_outputs(v, old, beta)
    ]
    loss = nft_loss(*errors, optimality(advantages, 5.0), beta).mean()
    return torch.autograd.grad(loss, v)[0], errors


@pytest.mark.parametrize("beta", [0.1, 1.0, 1.7])
def test_neutral_advantages_at_the_old_policy_are_a_fixed_point(beta):
    """A = 0 (r = 1/2) and v = v_old: both errors are equal and the gradient is exactly 0."""
    old, x_t = randn(2, 2, 3, 5)
    clean, t = randn(3, 5, seed=1), torch.full((2, 3), 0.6, dtype=torch.float64)
    gradient, (positive, negative) = gradient_in_v(old, old, clean, x_t, t, torch.zeros(3), beta)
    assert torch.equal(positive, negative)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(("advantage", "sign"), [(5.0, -1), (-5.0, 1)])
def test_good_pictures_pull_and_bad_ones_push(advantage, sign):
    """At v = v_old the step -gradient moves v towards the true velocity of a good picture, away from a bad one's."""
    clean, noise = randn(2, 1, 5)
    t = torch.full((1, 1), 0.5, dtype=torch.float64)
    x_t = (0.5 * clean + 0.5 * noise)[None]
    old = torch.zeros(1, 1, 5, dtype=torch.float64)
    gradient, _ = gradient_in_v(old, old, clean, x_t, t, torch.full((1,), advantage), 1.0)
    towards = float((-gradient * (noise - clean)).sum())
    assert towards * -sign > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_gradients_by_finite_differences(mode):
    """The divisor is held: the loss is differentiated as if it were a number."""
    clean, old, x_t = randn(3, 2, 3)
    t = f64(0.4, 0.8)[:, None]
    advantages, beta = f64(3.0, -1.0), 0.7
    sizes = [
        (x_t - t * m - clean).abs().mean(1).clamp_min(1e-5) for m in implicit_outputs(randn(2, 3, seed=9), old, beta)
    ]

    def loss(v):
        errors = [
            ((x_t - t * m - clean) ** 2).mean(1) / size
            for m, size in zip(implicit_outputs(v, old, beta), sizes, strict=True)
        ]
        return nft_loss(errors[0][None], errors[1][None], optimality(advantages, 5.0, mode), beta)

    v = randn(2, 3, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(loss, v)
    errors = [self_normalised_error(x_t - t * m, clean)[None] for m in implicit_outputs(v, old, beta)]
    found = torch.autograd.grad(nft_loss(*errors, optimality(advantages, 5.0, mode), beta).sum(), v)[0]
    assert_close(found, torch.autograd.grad(loss(v).sum(), v)[0])
