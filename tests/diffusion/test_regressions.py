"""Reward-weighted regression and SFT on the best, on the miniature."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.objectives import effective_share
from diffusion.config import DiscreteTimes, RwrConfig, SftBestConfig
from diffusion.exchange import WholeStep
from diffusion.sft_best import best_of_groups

from .models.assembled import RUN, assemble, with_reward

RWR = replace(RUN, algorithm=RwrConfig(times=DiscreteTimes(draws=2), temperature=0.01))
BEST = replace(RUN, algorithm=SftBestConfig(times=DiscreteTimes(draws=2)))


def slow_errors(parts, latents, index, prompts, step=1):
    """Mean over draws of the matching error of each row, one network call for one latent."""
    errors = []
    for place in range(len(index)):
        probe = parts.awm._prober(latents[place : place + 1], index[place : place + 1], step)
        draws = []
        for t, noise in zip(probe.times.flatten(), probe.noise, strict=True):
            x_t = (1 - t) * latents[place] + t * noise
            with torch.no_grad():
                v = parts.model.predict(parts.policy.module, x_t[None], t[None], parts.model.encode([prompts[place]]))
            draws.append(float(((v[0].double() - (noise - latents[place]).double()) ** 2).mean()))
        errors.append(sum(draws) / len(draws))
    return errors


@pytest.mark.parametrize("weights", ["exponential", "raw"])
def test_rwr_loss_equals_a_slow_loop(weights):
    parts = assemble(RWR, weights=weights)
    parts.disturb()
    batch = parts.awm.collect(1)
    scores, groups = batch.signal.scores.tolist(), batch.samples.group_ids.tolist()
    expected = []
    for score, group, error in zip(
        scores, groups, slow_errors(parts, batch.latents, batch.index, batch.samples.prompts), strict=True
    ):
        mine = [math.exp(s / 0.01) for s, g in zip(scores, groups, strict=True) if g == group]
        weight = {"exponential": math.exp(score / 0.01) * len(mine) / sum(mine), "raw": score}[weights]
        expected.append(weight * error)
    assert_close(float(parts.awm.loss(batch).loss.detach()), sum(expected) / len(expected), rtol=1e-5, atol=1e-6)


def test_rwr_of_equal_scores_is_plain_regression():
    parts = with_reward(lambda *, images, prompts: [0.3] * len(prompts), RWR)
    batch = parts.awm.collect(1)
    assert (batch.weights == 1).all()
    out = parts.awm.loss(batch)
    assert_close(out.loss.detach(), out.metrics["matching_error"], rtol=1e-12, atol=0)
    assert parts.awm.after_step(1) == {"effective_share": 1.0}


def test_effective_share_by_hand():
    """(1 + 3)^2 / (2 (1 + 9)) = 0.8; one of four alone: 1/4."""
    assert effective_share(torch.tensor([1.0, 3.0])) == pytest.approx(0.8)
    assert effective_share(torch.tensor([0.0, 0.0, 2.0, 0.0])) == 0.25
    assert math.isnan(effective_share(torch.zeros(3)))


def test_best_of_groups_by_hand():
    """Group 4 (rows 0, 2): row 2. Group 1 (rows 1, 3, 4): rows 3 and 4 tie, the first counts. Group 7: no score."""
    nan = float("nan")
    step = WholeStep(
        scores=torch.tensor([0.1, nan, 0.4, 0.2, 0.2, nan]), group_ids=torch.tensor([4, 1, 4, 1, 1, 7]), prompts={}
    )
    assert step.groups().tolist() == [4, 1, 7]
    assert best_of_groups(step).tolist() == [2, 3, 5]


def test_sft_best_trains_the_best_pictures_only():
    parts = assemble(BEST)
    parts.disturb()
    batch = parts.awm.collect(1)
    assert len(batch) == 2
    drawn = parts.awm._collector(1, parts.policy.module)
    order = list(dict.fromkeys(drawn.samples.group_ids[drawn.samples.index.argsort()].tolist()))
    prompts, expected = [], []
    for group in order:
        rows = (drawn.samples.group_ids == group).nonzero().flatten()
        best = rows[drawn.signal.scores[rows].argmax()]
        prompts.append(drawn.samples.prompts[int(best)])
        expected.append(drawn.latents[best])
    assert_close(batch.latents, torch.stack(expected), rtol=0, atol=0)
    errors = slow_errors(parts, batch.latents, batch.index, prompts)
    assert_close(float(parts.awm.loss(batch).loss.detach()), sum(errors) / len(errors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [RWR, BEST])
def test_the_pull_to_the_base_is_optional(config):
    parts, plain = assemble(config, kl_beta=0.5), assemble(config)
    for each in (parts, plain):
        each.disturb()
    out, without = (each.awm.loss(each.awm.collect(1)) for each in (parts, plain))
    assert "kl" not in without.metrics
    assert out.metrics["kl"] > 0
    expected = float(without.loss.detach()) + 0.5 * float(out.metrics["kl"])
    assert_close(float(out.loss.detach()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [RWR, BEST])
def test_two_micro_batches_equal_one(config):
    parts = assemble(replace(config, rollout=replace(config.rollout, prompts_per_step=4, group_size=2)))
    parts.disturb()
    batch = parts.awm.collect(1)
    whole = parts.gradient(batch)
    pieces = parts.gradient(batch.select(torch.arange(3)), batch.select(torch.arange(3, len(batch))))
    assert (pieces - whole).norm() < 1e-4 * whole.norm()
    assert whole.norm() > 1e-3
