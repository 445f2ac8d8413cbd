"""Rollouts on the miniature: every step rule, keyed noise, batches."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close

from align.engine.random import keyed_normal
from diffusion.config import DpmSolverSampler, FlowSdeSampler, OdeSampler, SaSolverSampler
from diffusion.paths import FlowPath
from diffusion.rollout import SamplerSettings, roll_out, sample, sample_latents

from .models.miniature import PROMPTS, miniature

SAMPLERS = [OdeSampler(), FlowSdeSampler(noise_level=0.7), SaSolverSampler(noise_level=0.4), DpmSolverSampler()]
SIGMAS = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0], dtype=torch.float64)


def no_timer(stage: str):
    return nullcontext()


def exact_velocity(target: torch.Tensor):
    """The velocity of point-mass data at `target`: v = (x_t - x_0) / t."""
    return lambda x, t: (x - target) / t


def draw(purpose: str, *more: int) -> torch.Tensor:
    return keyed_normal((3, 4), torch.arange(2), purpose, *more).double()


def run(sampler, velocity):
    """Two rows from the keyed noise of `draw`."""
    noise = {"latents": "start", "rollout_noise": "noise"}
    return sample(
        sampler,
        FlowPath(),
        lambda x, t, rows: velocity(x, t),
        lambda numbers, purpose, *more: draw(noise[purpose], *more)[numbers],
        torch.arange(2),
        SIGMAS,
    )


@pytest.mark.parametrize(
    "sampler", [OdeSampler(), SaSolverSampler(noise_level=0.4), DpmSolverSampler()], ids=lambda s: s.kind
)
def test_rules_find_the_only_picture_there_is(sampler):
    """All data at one point: the exact velocity leads there, whatever the noise on the way, in n network calls."""
    target, calls = draw("target"), []

    def velocity(x, t):
        calls.append(t)
        return exact_velocity(target)(x, t)

    found = run(sampler, velocity)
    assert len(calls) == 4
    assert_close(found, target, rtol=0, atol=1e-9)


def test_flow_sde_by_a_plain_loop():
    """x + [v + g^2/(2t) (x + (1-t) v)] dt + g sqrt(-dt) n with g = a sqrt(t / (1 - t)); at t = 1, 1 - t is 1 - 0.8."""
    velocity, x = exact_velocity(draw("target")), draw("start")
    found = run(FlowSdeSampler(noise_level=0.7), velocity)
    times = [1.0, 0.8, 0.5, 0.2, 0.0]
    for j in range(4):
        t, dt = times[j], times[j + 1] - times[j]
        g2 = 0.49 * t / (1 - (0.8 if t == 1 else t))
        v = velocity(x, t)
        x = x + (v + g2 / (2 * t) * (x + (1 - t) * v)) * dt + (g2 * -dt) ** 0.5 * draw("noise", j)
    assert_close(found, x, rtol=0, atol=1e-9)


def test_noise_level_zero_is_the_ode():
    model = miniature()
    conditioning, index = model.encode(PROMPTS), torch.arange(4)

    def final(sampler):
        settings = SamplerSettings(sampler=sampler, num_inference_steps=5)
        return sample_latents(model, model.network, conditioning, index, settings, 0, 1)

    ode = final(OdeSampler())
    assert_close(final(FlowSdeSampler(noise_level=0.0)), ode, rtol=0, atol=0)
    assert (final(FlowSdeSampler(noise_level=0.7)) - ode).abs().max() > 0.1
    assert ode.dtype == torch.float32


def test_unknown_rule_is_an_error():
    with pytest.raises(TypeError, match="no step rule for str"):
        run("ode", lambda x, t: x)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.kind)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    """Batches of 4, 3 and 1: the same latents but for the rounding of batched matrix products."""
    model = miniature()
    conditioning, rows, index = model.encode(PROMPTS), torch.tensor([0, 0, 1, 3]), torch.tensor([7, 3, 0, 9])

    def all_latents(batch_size):
        settings = SamplerSettings(sampler=sampler, num_inference_steps=4, batch_size=batch_size)
        drawn = list(roll_out(model, model.network, conditioning, rows, index, settings, no_timer, 5, 2))
        assert torch.cat([d.rows for d in drawn]).tolist() == [0, 1, 2, 3]
        assert all(len(d.images) == len(d.rows) for d in drawn)
        return torch.cat([d.latents for d in drawn])

    whole = all_latents(4)
    for batch_size in (3, 1):
        assert_close(all_latents(batch_size), whole, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole[0], whole[1], atol=0.1)  # the same prompt, other noise


def test_key_and_row_number_decide_the_noise():
    model = miniature()
    conditioning = model.encode(PROMPTS[:1])
    settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=2)

    def latents(row, *key):
        return sample_latents(model, model.network, conditioning, torch.tensor([row]), settings, *key)

    assert torch.equal(latents(3, 0, 1), latents(3, 0, 1))
    assert not torch.equal(latents(3, 0, 1), latents(4, 0, 1))
    assert not torch.equal(latents(3, 0, 1), latents(3, 0, 2))
    assert not torch.equal(latents(3, 0, 1), latents(3, 1, 1))


def test_a_rollout_leaves_no_graph():
    model = miniature()
    model.network.requires_grad_(True)
    settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=2)
    found = sample_latents(model, model.network, model.encode(PROMPTS), torch.arange(4), settings, 0)
    assert not found.requires_grad
