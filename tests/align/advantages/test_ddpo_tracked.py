"""DDPO's tracked statistics: by hand, against the buffers of a plain dictionary, over a checkpoint."""

import math
import statistics
from collections import defaultdict, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate


def run(rewards, prompts, state=None, **options):
    inputs = AdvantageInputs(rewards=torch.tensor(rewards), prompt_ids=torch.tensor(prompts))
    return estimate("ddpo_tracked", inputs, state=state, **options)


def test_by_hand():
    """Prompt 7 has earned 1 and 3 (min_count 2): mean 2, population std 1. Prompt 9 has 5 once: the batch 1 3 5 has
    mean 3 and std sqrt(8/3). Next step prompt 9 earns 7: mean 6, std 1."""
    first = run([1.0, 3.0, 5.0], [7, 7, 9], min_count=2, eps=0.0)
    assert_close(first.advantages, torch.tensor([-1.0, 1.0, 2 / math.sqrt(8 / 3)]))
    assert first.stats["ddpo/frac_tracked"] == pytest.approx(2 / 3)
    second = run([7.0], [9], first.state, min_count=2, eps=0.0)
    assert_close(second.advantages, torch.tensor([1.0]))
    assert second.stats["ddpo/remembered"] == 4


def test_only_the_last_rewards_count():
    """Buffer of 2: after 1, 3, 5 it holds 3 and 5: mean 4, std 1."""
    state = {}
    for reward in (1.0, 3.0, 5.0):
        result = run([reward], [4], state, buffer_size=2, min_count=2, eps=0.0)
        state = result.state
    assert result.advantages.tolist() == [1.0]
    assert sorted(state["rewards"].tolist()) == [3.0, 5.0]


@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=6), min_size=1, max_size=4
    )
)
def test_slow_loop(steps):
    buffers, state = defaultdict(lambda: deque(maxlen=4)), {}
    for rows in steps:
        rewards = [reward / 8 for _, reward in rows]
        for (prompt, _), reward in zip(rows, rewards, strict=True):
            buffers[prompt].append(reward)
        expected = []
        for (prompt, _), reward in zip(rows, rewards, strict=True):
            known = buffers[prompt] if len(buffers[prompt]) >= 3 else rewards
            expected.append((reward - statistics.fmean(known)) / (statistics.pstdev(known) + 1e-6))
        result = run(rewards, [prompt for prompt, _ in rows], state, buffer_size=4, min_count=3)
        state = result.state
        assert_close(result.advantages, torch.tensor(expected, dtype=torch.float64).float(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("min_count", [1, 99])
def test_rewards_that_never_change_are_exactly_zero(min_count):
    """In float64 the mean of fifteen 98.3 misses 98.3 by 1e-14, and eps is small."""
    state = {}
    for _ in range(3):
        result = run([98.3] * 15, [5] * 15, state, min_count=min_count)
        assert (result.advantages == 0).all()
        state = result.state


def test_prompts_are_known_by_their_group_where_nothing_better_is_given():
    groups = AdvantageInputs(rewards=torch.tensor([1.0, 3.0, 5.0]), group_ids=torch.tensor([7, 7, 9]))
    first = estimate("ddpo_tracked", groups, min_count=2)
    assert torch.equal(first.advantages, run([1.0, 3.0, 5.0], [7, 7, 9], min_count=2).advantages)
    assert first.state["prompt_ids"].tolist() == [7, 7, 9]  # as given: dense codes would change from step to step


def test_an_unscored_sample_is_not_remembered():
    result = run([1.0, math.nan, 3.0], [7, 7, 7], min_count=2)
    assert result.state["rewards"].tolist() == [1.0, 3.0]
    assert result.advantages[1] == 0


def test_a_step_without_scores_forgets_nothing():
    first = run([1.0, 3.0], [7, 7])
    second = run([math.nan], [7], first.state)
    assert torch.equal(second.state["rewards"], first.state["rewards"])
