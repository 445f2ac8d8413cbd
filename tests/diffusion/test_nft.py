"""DiffusionNFT on the miniature: against a slow float64 loop, the old policy, fixed points, state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.config.shared import TrainingConfig
from align.engine.random import keyed_normal
from align.errors import AlignError
from diffusion.config import ConstantLag, LinearLag, LogitNormalTimes, NftConfig, RolloutTimes
from diffusion.timesteps import draw_times

from .models.assembled import RUN, Assembled, assemble
from .models.miniature_unet import miniature_sd2

ALL_TIMES = RolloutTimes(draws=5)
NFT = replace(RUN, algorithm=NftConfig(times=ALL_TIMES))


def slow_loss(parts: Assembled, batch, step: int) -> float:
    """Every (sample, draw) by itself, the published formulas in float64, one network call for one latent."""
    config, nft = parts.config, parts.config.algorithm
    sigmas = parts.model.times(config.rollout.num_inference_steps)
    losses, pulls = [], []
    for place, index in enumerate(batch.samples.index.tolist()):
        row = torch.tensor([index])
        times = draw_times(nft.times, sigmas, row, 1, config.seed, step, "train_times")[:, 0].tolist()
        noises = keyed_normal((len(times), *batch.latents.shape[1:]), row, config.seed, step, "train_noise")[0]
        x0, conditioning = batch.latents[place], parts.model.encode([batch.samples.prompts[place]])
        r = min(max(float(batch.signal.advantages[place]) / 10 + 0.5, 0.0), 1.0)
        for t, noise in zip(times, noises, strict=True):
            x_t = (1 - t) * x0 + t * noise

            def velocity(network, x_t=x_t, t=t, conditioning=conditioning):
                with torch.no_grad():
                    return parts.model.predict(network, x_t[None], torch.tensor([t]), conditioning)[0].double()

            v = velocity(parts.policy.module)
            with parts.policy.swapped(parts.awm._lagged.weights) as network:
                old = velocity(network)
            with parts.policy.reference() as network:
                pulls.append(float(((v - velocity(network)) ** 2).mean()))
            errors = []
            for implicit in (nft.beta * v + (1 - nft.beta) * old, (1 + nft.beta) * old - nft.beta * v):
                difference = x_t.double() - t * implicit - x0.double()
                errors.append(float((difference**2).mean() / difference.abs().mean().clamp_min(1e-5)))
            losses.append((r * errors[0] + (1 - r) * errors[1]) / nft.beta)
    return 5 * sum(losses) / len(losses) + nft.kl_beta * sum(pulls) / len(pulls)


@pytest.mark.parametrize(
    "settings", [{}, {"beta": 0.1, "kl_beta": 0.2}, {"beta": 1.5, "times": LogitNormalTimes(draws=2), "kl_beta": 0.0}]
)
def test_loss_equals_a_slow_loop(settings):
    """Trained, old and base policy all differ. float32 networks on other batch shapes agree to about 1e-6."""
    parts = assemble(NFT, **settings)
    parts.disturb("old", 0.1)
    parts.awm._lagged.follow(0)
    batch = parts.awm.collect(1)
    parts.disturb("trained", 0.05)
    out = parts.awm.loss(batch)
    assert out.count == len(batch)
    assert_close(float(out.loss.detach()), slow_loss(parts, batch, 1), rtol=1e-4, atol=1e-5)
    assert out.metrics["kl_lagged"] > 1e-5
    assert ("kl" in out.metrics) == (parts.config.algorithm.kl_beta > 0)


def test_all_of_the_rollouts_times_are_trained():
    parts = assemble(NFT)
    batch = parts.awm.collect(1)
    probe = parts.awm._prober(batch.latents, batch.samples.index, 1)
    sigmas = parts.model.times(5)[:-1]
    for place in range(len(batch)):
        assert torch.equal(probe.times[:, place], sigmas)


def neutral(batch):
    return replace(batch, signal=replace(batch.signal, advantages=torch.zeros_like(batch.signal.advantages)))


def test_neutral_advantages_at_the_old_policy_teach_nothing():
    """r = 1/2 and v = v_old: L+ = L- bit for bit, and the gradient is exactly 0."""
    parts = assemble(NFT, kl_beta=0.0)
    parts.disturb()
    parts.awm._lagged.follow(0)
    batch = neutral(parts.awm.collect(1))
    metrics = parts.awm.loss(batch).metrics
    assert metrics["nft/positive"] == metrics["nft/negative"]
    assert metrics["kl_lagged"] == 0
    assert parts.gradient(batch).abs().max() == 0


def test_first_gradient_is_the_difference_of_good_and_bad():
    """At v = v_old the gradient is 5 mean (2 r - 1) dL/dv: with A = 5 s for half of the samples and -5 s for the others
    it turns round when s does.
    """
    parts = assemble(NFT, kl_beta=0.0)
    parts.disturb()
    parts.awm._lagged.follow(0)
    batch = parts.awm.collect(1)

    def gradient(scale):
        values = scale * torch.tensor([5.0, -5.0] * 4)
        return parts.gradient(replace(batch, signal=replace(batch.signal, advantages=values)))

    there, back, half = gradient(1.0), gradient(-1.0), gradient(0.5)
    assert there.norm() > 1e-2
    assert (there + back).norm() < 1e-4 * there.norm()
    assert (half - there / 2).norm() < 1e-4 * there.norm()


def test_the_old_policy_rolls_out():
    """Whatever is trained meanwhile, pictures are the old policy's until it follows."""
    parts, again = assemble(NFT), assemble(NFT)
    again.disturb()
    assert_close(again.awm.collect(1).latents, parts.awm.collect(1).latents, rtol=0, atol=0)
    assert again.awm.after_step(1) == {"lagged_decay": 0.001}
    assert (again.awm.collect(1).latents - parts.awm.collect(1).latents).abs().max() > 1e-3


def test_lag_types():
    """Type 0: the old policy is the current one after each step."""
    parts = assemble(NFT, lagged=ConstantLag())
    parts.disturb()
    parts.awm.after_step(1)
    assert parts.awm.loss(parts.awm.collect(2)).metrics["kl_lagged"] == 0
    later = assemble(NFT, lagged=LinearLag(per_step=0.0075, max_decay=0.999, start=75))
    assert later.awm.after_step(75) == {"lagged_decay": 0.0}
    assert later.awm.after_step(1000) == {"lagged_decay": 0.999}


def test_the_base_pull_alone_pulls_to_the_base():
    parts = assemble(NFT, kl_beta=2.0)
    batch = parts.awm.collect(1)
    assert parts.awm.loss(batch).metrics["kl"] == 0
    parts.disturb()
    metrics = parts.awm.loss(batch).metrics
    assert metrics["kl"] > 0
    loss = float(parts.awm.loss(batch).loss.detach())
    assert_close(loss, float(metrics["policy_loss"]) + 2.0 * float(metrics["kl"]), rtol=1e-5, atol=1e-6)


def test_two_micro_batches_equal_one():
    parts = assemble(NFT)
    parts.disturb()
    batch = parts.awm.collect(1)
    whole = parts.gradient(batch)
    pieces = parts.gradient(batch.select(torch.arange(5)), batch.select(torch.arange(5, 8)))
    assert (pieces - whole).norm() < 1e-4 * whole.norm()
    assert whole.norm() > 1e-3


def test_several_updates_keep_the_old_policy():
    run = replace(NFT, training=TrainingConfig(micro_batch_size=4, updates_per_rollout=2))
    parts = assemble(run)
    batch = parts.awm.collect(1)
    parts.disturb()
    parts.awm.prepare_update(1, batch)
    assert parts.awm.loss(batch).metrics["kl_lagged"] > 1e-4


def test_works_on_models_that_predict_v():
    """Clean latents are linear in the output on every path; r = 1/2 at the old policy still is a fixed point."""
    parts = assemble(NFT, model=miniature_sd2(), kl_beta=0.0)
    parts.disturb()
    parts.awm._lagged.follow(0)
    batch = parts.awm.collect(1)
    assert parts.gradient(neutral(batch)).abs().max() == 0
    assert parts.gradient(batch).norm() > 1e-4


def test_needs_a_bound_of_the_advantages():
    with pytest.raises(AlignError, match=r"pipeline\.clip"):
        assemble(replace(NFT, pipeline=replace(NFT.pipeline, clip=None)))


def test_state_survives_a_round_trip():
    parts, again = assemble(NFT), assemble(NFT)
    parts.disturb()
    parts.awm.after_step(1)
    again.awm.load_state_dict(dict(parts.awm.state_dict()))
    for name, weight in parts.awm._lagged.weights.items():
        assert torch.equal(weight, again.awm._lagged.weights[name])
    assert torch.equal(again.awm.collect(2).latents, parts.awm.collect(2).latents)
