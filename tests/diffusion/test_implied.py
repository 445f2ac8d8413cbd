"""Rewards of the pictures on the way: which they are, and a step that learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from align.advantages import estimate
from align.config.pipeline import PipelineConfig
from align.config.trees import StepwiseGain
from align.shaping.pipeline import SignalPipeline
from diffusion.config import AllSteps, RandomWindow

from .models.chained import FLOW, NOISE, chained


def brightness(images, **_):
    return [float(np.asarray(image).mean()) for image in images]


def of_four_steps(run=FLOW, **pipeline):
    """Two prompts of four pictures, in batches of three."""
    rollout = replace(run.rollout, num_inference_steps=4, batch_size=3)
    return replace(run, rollout=rollout, pipeline=PipelineConfig(base=StepwiseGain(), **pipeline))


def collected(run, monkeypatch, reward=brightness, **algorithm):
    """The parts, the batch of a step, what the estimator was given, and how many pictures were scored."""
    seen, given = [], []

    def counted(images, **columns):
        seen.append(len(images))
        return reward(images)

    compared = SignalPipeline._compared
    monkeypatch.setattr(SignalPipeline, "_compared", lambda *args: (given.append(args[1]), compared(*args))[1])
    parts = chained(run, reward=counted, **algorithm)
    return parts, parts.method.collect(1), given[0], sum(seen)


def implied_brightness(parts, batch):
    """Brightness of the prediction at each kept state, one row and state after the other; in order of the rows."""
    way, model, found = batch.trajectory, parts.model, []
    times = [way.times[j] for j in (way.trained[0], *(j + 1 for j in way.trained))]
    for row, prompt in enumerate(batch.samples.prompts):
        found.append([])
        for k, t in enumerate(times):
            x = way.states[row : row + 1, k]
            if t > 0:
                scale = parts.config.rollout.guidance_scale
                network = parts.policy.module
                with torch.no_grad():
                    m = model.predict(network, x, torch.tensor([t]), model.encode([prompt]), scale)
                x = model.path.ends(x, m, t).clean
            found[-1] += brightness(model.decode(x))
    return torch.tensor(found)


@pytest.mark.parametrize("steps", [AllSteps(), RandomWindow(size=2, latest=1.0)], ids=lambda steps: steps.kind)
def test_a_step_learns_from_what_each_denoising_step_adds(monkeypatch, steps):
    """Rewards [n, t + 1], advantages [n, t]; gains telescope to R_T - R_0, which an independent prediction gives."""
    parts, batch, given, _ = collected(of_four_steps(), monkeypatch, steps=steps)
    trained = len(batch.trajectory.trained)
    rewards = given.done_reward_seq[batch.samples.index]
    assert rewards.shape == (8, trained + 1)
    assert batch.signal.advantages.shape == (8, trained)
    own = implied_brightness(parts, batch)
    assert_close(rewards, own, rtol=0, atol=0.05)  # 8-bit pictures of batches of another size
    assert_close(rewards.diff(dim=1).sum(1), own[:, -1] - own[:, 0], rtol=0, atol=0.1)
    expected = estimate("stepwise_gain", given).advantages[batch.samples.index]
    assert_close(batch.signal.advantages, expected)
    assert batch.signal.advantages.abs().max() > 0
    gradient = parts.gradient(batch.passes())
    assert gradient.isfinite().all()
    assert gradient.norm() > 0
    assert np.isfinite(parts.loss(batch))


def test_a_way_that_is_trained_to_its_end_ends_with_the_reward_itself(monkeypatch):
    """Four steps, eight pictures: 8 + 8 x 4 are scored, the finished ones once."""
    parts, batch, given, scored = collected(of_four_steps(NOISE), monkeypatch, steps=AllSteps(share=1.0))
    assert given.done_reward_seq.shape == (8, 5)
    assert torch.equal(given.done_reward_seq[:, -1], given.rewards)
    assert scored == 8 + 8 * 4
    own = implied_brightness(parts, batch)
    assert_close(given.done_reward_seq[batch.samples.index][:, :-1], own[:, :-1], rtol=0, atol=0.05)
