"""Pictures noised again: times and noise by row, on both paths; AWM on models that predict noise or v."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.engine.random import keyed_normal
from align.errors import AlignError
from diffusion.config import AwmConfig, DiscreteTimes, LogitNormalTimes, NoiseScheduleTimes, UniformTimes
from diffusion.paths import DdpmPath, FlowPath
from diffusion.probe import Prober, noise_schedule, trained_times
from diffusion.timesteps import draw_times

from .models.assembled import RUN, assemble
from .models.miniature_unet import miniature_sd2, miniature_sd15

ABARS = torch.linspace(0.99, 0.01, 10)
DDPM = DdpmPath(ABARS, "epsilon")


def test_trained_times_by_hand():
    """Ten discrete times 0, 0.1, ... 0.9: 0.26 is rounded to 0.3, and 1 to the last one. A flow model has all times."""
    t = torch.tensor([0.0, 0.26, 0.94, 0.97, 1.0])
    assert_close(trained_times(DDPM, t), torch.tensor([0.0, 0.3, 0.9, 0.9, 0.9]))
    assert torch.equal(trained_times(FlowPath(), t), t)


def test_noise_schedule_by_hand():
    assert_close(noise_schedule(DDPM), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]))
    flow = noise_schedule(FlowPath())
    assert len(flow) == 1000
    assert (flow[0], flow[-1]) == (1.0, pytest.approx(0.001))


def test_noise_schedule_times_are_uniform_over_all_of_them():
    """One stratum: each of 10 times is drawn about 200 times in 2000; 5 standard deviations are 67."""
    times = draw_times(NoiseScheduleTimes(), noise_schedule(DDPM), torch.arange(2000), 1, 0, "times")
    index = DDPM.index(times.flatten())
    assert set(index.tolist()) == set(range(10))
    assert (index.bincount() - 200).abs().max() < 67


def test_noise_schedule_times_are_stratified():
    """Five draws of ten times: one from each neighbouring two, in the order of the schedule."""
    times = draw_times(NoiseScheduleTimes(draws=5), noise_schedule(DDPM), torch.arange(50), 1, 0, "times")
    index = 9 - DDPM.index(times)
    assert torch.equal(index // 2, torch.arange(5)[:, None].expand(5, 50))


@pytest.mark.parametrize("times", [DiscreteTimes(draws=2), NoiseScheduleTimes(draws=3), UniformTimes(draws=2)])
@pytest.mark.parametrize("make", [None, miniature_sd15, miniature_sd2])
def test_a_probe_is_what_the_path_says_row_by_row(times, make):
    """Every (draw, row) by itself: x_t and the target; rows with the same number share time and noise."""
    parts = assemble(model=None if make is None else make(), times=times)
    model = parts.model
    prober = Prober(parts.config, times, model=model, policy=parts.policy, timer=parts.awm._timer)
    index, latents = torch.tensor([5, 2, 5]), torch.randn(3, *model.latent_shape(), generator=torch.manual_seed(0))
    probe = prober(latents, index, step=3)
    noise = keyed_normal((times.draws, *model.latent_shape()), index, parts.config.seed, 3, "train_noise")
    rows = torch.arange(times.draws * 3).view(times.draws, 3)
    for draw in range(times.draws):
        for place in range(3):
            t, m = float(probe.times[draw, place]), int(rows[draw, place])
            x_t = model.path.noised(latents[place : place + 1], noise[place, draw][None], torch.tensor([t]))
            assert_close(probe.x_t[m], x_t[0], rtol=0, atol=0)
    assert torch.equal(probe.times[:, 0], probe.times[:, 2])
    first, _, third = probe.noise.view(times.draws, 3, *model.latent_shape()).unbind(1)
    assert torch.equal(first, third)
    perfect = model.path.target(probe.clean, probe.noise, probe.times.flatten())
    assert prober.error(perfect, probe).max() < 1e-12  # float32 targets against float64 ones
    assert_close(prober.clean(perfect, probe), probe.clean, rtol=0, atol=2e-3)  # epsilon divides by sqrt(abar) at T
    off = prober.error(perfect + 0.5, probe)
    assert_close(off, torch.full_like(off, 0.25), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [miniature_sd15, miniature_sd2])
def test_awm_on_noise_and_v_predictions_equals_a_slow_loop(make):
    """The score-matching form, each sample and draw passed alone: mean of -A (rho is 1), and the pull."""
    model = make()
    config = replace(RUN, algorithm=AwmConfig(times=DiscreteTimes(draws=2), weighting="t", kl_beta=0.3, lagged=None))
    parts = assemble(config, model=model)
    parts.disturb()
    batch = parts.awm.collect(1)
    out = parts.awm.loss(batch)
    assert out.metrics["ratio_deviation"] == 0
    errors, pulls = [], []
    probe = parts.awm._probe(batch)
    path, sigmas = model.path, model.times(parts.config.rollout.num_inference_steps)
    for place in range(len(batch)):
        row = batch.samples.index[place : place + 1]
        times = draw_times(parts.config.algorithm.times, sigmas, row, 1, 0, 1, "train_times")[:, 0]
        noises = keyed_normal((2, *batch.latents.shape[1:]), row, 0, 1, "train_noise")[0]
        for draw, (t, noise) in enumerate(zip(times, noises, strict=True)):
            index = round(float(t) * len(path.abars))
            abar = path.abars.double()[index]
            x0 = batch.latents[place].double()
            x_t = (abar.sqrt() * x0 + (1 - abar).sqrt() * noise.double()).float()[None]
            target = noise.double()
            if path.prediction_type == "v_prediction":
                target = abar.sqrt() * noise.double() - (1 - abar).sqrt() * x0
            conditioning = model.encode([batch.samples.prompts[place]])
            with torch.no_grad():
                output = model.predict(parts.policy.module, x_t, t[None], conditioning)
                with parts.policy.reference() as network:
                    base = model.predict(network, x_t, t[None], conditioning)
            errors.append(float(((output[0].double() - target) ** 2).mean()))
            pulls.append(float(((output - base).double() ** 2).mean()))
            assert_close(float(probe.times[draw, place]), index / len(path.abars), rtol=1e-6, atol=0)
    assert_close(float(out.metrics["matching_error"]), sum(errors) / len(errors), rtol=1e-4, atol=1e-6)
    assert_close(float(out.metrics["kl"]), sum(pulls) / len(pulls), rtol=1e-3, atol=1e-6)
    advantages = batch.signal.advantages / parts.config.pipeline.clip
    assert_close(
        float(out.loss.detach()), -float(advantages.mean()) + 0.3 * sum(pulls) / len(pulls), rtol=1e-3, atol=1e-6
    )


def test_awm_learns_on_noise_predictions():
    """At ratio 1 the gradient is that of mean A t L, sample by sample, through autograd on the slow form."""
    config = replace(RUN, algorithm=AwmConfig(times=DiscreteTimes(draws=2), weighting="t", kl_beta=0.0, lagged=None))
    parts = assemble(config, model=miniature_sd15())
    parts.disturb()
    batch = parts.awm.collect(1)
    found = parts.gradient(batch)
    probe = parts.awm._probe(batch)
    output = parts.awm._prober.trained(probe, batch.conditioning, batch.prompt_rows).double()
    error = ((output - probe.noise.double()) ** 2).flatten(1).mean(1).view_as(probe.times)
    weighted = batch.signal.advantages.double() / 5 * probe.times * error
    weights = list(parts.policy.trainable_parameters().values())
    expected = torch.autograd.grad(weighted.mean(), weights, allow_unused=True)
    expected = torch.cat([torch.zeros(w.numel()) if g is None else g.flatten() for w, g in zip(weights, expected)])
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert found.norm() > 1e-4


def test_a_weighting_of_flows_is_refused_on_the_other_path():
    with pytest.raises(AlignError, match="elbo"):
        assemble(model=miniature_sd15(), kl_weighting="elbo")


def test_continuous_times_are_those_of_the_schedule():
    """Logit-normal times on the diffusion path are the nearest discrete ones."""
    parts = assemble(model=miniature_sd15(), times=LogitNormalTimes(draws=4))
    probe = parts.awm._prober(torch.zeros(3, *parts.model.latent_shape()), torch.arange(3), 1)
    steps = probe.times.double() * 1000
    assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert probe.times.max() <= 0.999
