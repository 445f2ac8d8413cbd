"""Greedy and reference pictures: who draws them, from which noise, and where their rewards end up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from align.engine.distributed import Processes
from align.errors import AlignError
from align.rewards.scorer import AllUnscored
from align.types import Samples
from diffusion.baselines import Baselines, Drawing
from diffusion.config import FlowSdeSampler
from diffusion.inputs import GREEDY, REFERENCE
from diffusion.rollout import roll_out

from .models.assembled import RUN, with_reward

NOISY = replace(RUN, rollout=replace(RUN.rollout, sampler=FlowSdeSampler(noise_level=0.7)))


def brightness(images, **_):
    return [float(np.asarray(image).mean()) for image in images]


def parts_of(config=NOISY, reward=brightness, **changes):
    """The miniature, its baselines, and a step of four rows of two prompts, rows out of order."""
    parts = with_reward(reward, config)
    collector = parts.awm._collector
    baselines = Baselines(
        model=parts.model,
        scorer=collector._scorer,
        settings=collector._settings,
        processes=Processes(),
        timer=collector._timer,
        seed=config.seed,
        reference=parts.policy.reference,
    )
    samples = Samples(
        index=torch.tensor([2, 0, 3, 1]),
        group_ids=torch.tensor([11, 10, 10, 11]),
        prompts=["two", "one", "one", "two"],
    )
    drawing = Drawing(
        step=1,
        samples=samples,
        conditioning=parts.model.encode(["one", "two"]),
        prompt_rows=torch.tensor([1, 0, 0, 1]),
        network=parts.policy.module,
    )
    return parts, replace(baselines, **changes), drawing


def drawn(parts, baselines, drawing, network, *purpose):
    """Rewards of the samples themselves, or of what the same rows draw for a purpose; by row of the step."""
    key = (parts.config.seed, drawing.step, *purpose)
    batches = roll_out(
        parts.model, network, drawing.conditioning, drawing.prompt_rows, drawing.samples.index, baselines.settings,
        baselines.timer, *key,
    )  # fmt: skip
    images = [image for batch in batches for image in batch.images]
    values = torch.tensor(brightness(images))
    return values[drawing.samples.index.argsort()]


def test_before_training_the_reference_is_the_policy():
    """The policy on the reference's noise, in the order of the rows of the step; the samples' own noise is another."""
    parts, baselines, drawing = parts_of()
    found = baselines(REFERENCE, drawing).values[:, 0]
    same = drawn(parts, baselines, drawing, parts.policy.module, "reference")
    torch.testing.assert_close(found, same, rtol=1e-5, atol=1e-3)
    assert (found - drawn(parts, baselines, drawing, parts.policy.module)).abs().min() > 1e-3


def test_the_reference_stays_where_training_began():
    parts, baselines, drawing = parts_of()
    before = baselines(REFERENCE, drawing).values
    parts.disturb()
    assert torch.equal(baselines(REFERENCE, drawing).values, before)
    moved = drawn(parts, baselines, drawing, parts.policy.module, "reference")
    assert (moved - before[:, 0]).abs().max() > 0.01


def test_greedy_pictures_are_one_per_prompt_and_follow_the_policy():
    """Rows 0, 3 are group 10, rows 1, 2 group 11: equal rewards within a group, and other ones after training."""
    parts, baselines, drawing = parts_of()
    found = baselines(GREEDY, drawing).values[:, 0]
    assert found[0] == found[3]
    assert found[1] == found[2]
    assert found[0] != found[1]
    parts.disturb()
    assert (baselines(GREEDY, drawing).values[:, 0] - found).abs().max() > 0.01


def test_greedy_pictures_have_no_random_steps():
    """They are the same whatever the noise level of the rollout is."""
    level = replace(RUN, rollout=replace(RUN.rollout, sampler=FlowSdeSampler(noise_level=0.2)))
    values = [baselines(GREEDY, drawing).values for _, baselines, drawing in (parts_of(), parts_of(level))]
    assert torch.equal(*values)


def test_greedy_pictures_are_drawn_anew_in_each_step():
    _, baselines, drawing = parts_of()
    assert not torch.equal(baselines(GREEDY, drawing).values, baselines(GREEDY, replace(drawing, step=2)).values)


def test_greedy_pictures_are_drawn_once_per_prompt():
    seen = []

    def counted(images, **_):
        seen.append(len(images))
        return brightness(images)

    _, baselines, drawing = parts_of(reward=counted)
    baselines(GREEDY, drawing)
    assert sum(seen) == 2
    baselines(REFERENCE, drawing)
    assert sum(seen) == 2 + 4


def test_a_batch_size_changes_no_row():
    _, baselines, drawing = parts_of()
    small = replace(baselines, settings=replace(baselines.settings, batch_size=1))
    for wanted in (GREEDY, REFERENCE):
        torch.testing.assert_close(
            small(wanted, drawing).values, baselines(wanted, drawing).values, rtol=1e-4, atol=1e-2
        )  # rounding of batched products, seen through 8-bit pictures


def test_nobody_kept_the_reference():
    _, baselines, drawing = parts_of(reference=None)
    with pytest.raises(AlignError, match="policy from before training, which this run has not kept"):
        baselines(REFERENCE, drawing)
    baselines(GREEDY, drawing)


def test_baselines_that_nobody_can_score():
    def nothing(images, **_):
        return [None] * len(images)

    _, baselines, drawing = parts_of(reward=nothing)
    with pytest.raises(AllUnscored):
        baselines(GREEDY, drawing)
