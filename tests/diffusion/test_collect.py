"""Collecting a step: groups, the background scorer, unscored samples, problems."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from align.rewards.scorer import AllUnscored
from align.types import RewardTable
from diffusion.collect import joined_tables, scored_in_background
from diffusion.rollout import Drawn

from .models.assembled import RUN, assemble, with_reward
from .models.miniature import PROMPTS

calls: list[dict] = []


def recorded(*, images, prompts, **columns):
    """A reward that notes what it was given."""
    calls.append({"images": list(images), "prompts": list(prompts), **columns})
    return [float(len(prompt)) for prompt in prompts]


def broken(*, images):
    raise RuntimeError("no scorer today")


def test_a_step_has_whole_groups_and_columns_reach_the_rewards():
    calls.clear()
    batch = with_reward(recorded).awm.collect(1)
    assert len(batch) == 8
    assert batch.samples.index.tolist() == list(range(8))
    assert batch.samples.group_ids.dtype == torch.int64
    assert sorted(batch.samples.group_ids.unique(return_counts=True)[1].tolist()) == [4, 4]
    for prompt, group in zip(batch.samples.prompts, batch.samples.columns["class"], strict=True):
        assert ("one", "count", "placed", "size")[PROMPTS.index(prompt)] == group
    assert [row for call in calls for row in call["class"]] == list(batch.samples.columns["class"])
    assert len(batch.conditioning) == 2  # one row per distinct prompt
    names = [batch.samples.prompts[i] for i in range(8)]
    assert len({(name, int(row)) for name, row in zip(names, batch.prompt_rows, strict=True)}) == 2


def test_two_steps_are_one_epoch_of_four_prompts():
    parts = assemble(RUN)
    assert set(parts.awm.collect(1).samples.prompts) | set(parts.awm.collect(2).samples.prompts) == set(PROMPTS)


def test_rewards_meet_their_own_pictures():
    """The first pixel's red value as the reward, over batches of 3: order is kept through the thread."""

    def red(*, images):
        return [float(image.getpixel((0, 0))[0]) for image in images]

    parts = with_reward(red)
    parts.awm._collector._settings = replace(parts.awm._collector._settings, batch_size=3)
    batch = parts.awm.collect(1)
    assert batch.rewards.values[:, 0].tolist() == red(images=batch.samples.images)
    assert batch.signal.scores.tolist() == batch.rewards.values[:, 0].tolist()


def test_unscored_samples_are_counted_and_teach_nothing():
    def scored_where_short(*, images, prompts):
        return [None if len(prompt) > 20 else float(i) for i, prompt in enumerate(prompts)]

    parts = with_reward(scored_where_short)
    for step in (1, 2):
        batch = parts.awm.collect(step)
        unscored = batch.rewards.values[:, 0].isnan()
        if not unscored.any():
            continue
        assert batch.signal.stats["unscored"] == unscored.sum()
        assert batch.signal.advantages[unscored].abs().max() == 0
        assert not batch.signal.advantages.isnan().any()
        assert sum(batch.rewards.problems["scored_where_short"].values()) == unscored.sum()


def test_a_step_in_which_nothing_is_scored_stops_with_the_reason(caplog):
    with pytest.raises(AllUnscored, match="no scorer today"):
        with_reward(broken).awm.collect(1)


def test_selection_keeps_rows_together():
    batch = assemble(RUN).awm.collect(1)
    rows = torch.tensor([6, 1])
    part = batch.select(rows)
    assert len(part) == 2
    assert part.samples.index.tolist() == [6, 1]
    assert torch.equal(part.latents, batch.latents[rows])
    assert torch.equal(part.signal.advantages, batch.signal.advantages[rows])
    assert torch.equal(part.rewards.values, batch.rewards.values[rows])
    assert part.samples.images[0] is batch.samples.images[6]
    assert torch.equal(
        part.conditioning.select(part.prompt_rows)["pooled"],
        batch.conditioning.select(batch.prompt_rows[rows])["pooled"],
    )


def table(values, problems=None) -> RewardTable:
    return RewardTable(
        names=("a", "b"), values=torch.tensor(values), weights=torch.tensor([1.0, 0.0]), problems=problems or {}
    )


def test_joined_tables_by_hand():
    joined = joined_tables(
        [table([[1.0, 2.0]], {"a": {"x": 1}}), table([[3.0, 4.0], [5.0, 6.0]], {"a": {"x": 2, "y": 1}, "b": {"z": 1}})]
    )
    assert joined.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert joined.problems == {"a": {"x": 3, "y": 1}, "b": {"z": 1}}


def test_scoring_overlaps_with_sampling():
    """The second batch is drawn before the first one's scores are there; waiting in turn would never end."""
    second_drawn = threading.Event()

    def drawn():
        for number in range(2):
            if number == 1:
                second_drawn.set()
            yield Drawn(rows=torch.tensor([number]), latents=torch.zeros(1, 1, 1, 1), images=[None])

    def score(batch):
        assert second_drawn.wait(timeout=30)
        return table([[float(batch.rows), 0.0]])

    batches, joined = scored_in_background(drawn(), score, lambda stage: nullcontext())
    assert len(batches) == 2
    assert joined.values[:, 0].tolist() == [0, 1]


def test_an_error_while_sampling_is_not_swallowed():
    def drawn():
        yield Drawn(rows=torch.tensor([0]), latents=torch.zeros(1, 1, 1, 1), images=[None])
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        scored_in_background(drawn(), lambda batch: table([[0.0, 0.0]]), lambda stage: nullcontext())
