"""The four estimators, worked by hand and against slow loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

REWARDS = [1.0, 2.0, 6.0, 4.0, 0.0]
IDS = [0, 0, 0, 1, 1]


def advantages(kind, rewards, ids, **options):
    inputs = AdvantageInputs(rewards=torch.tensor(rewards), group_ids=torch.tensor(ids))
    return estimate(kind, inputs, **options).advantages


def test_rloo_by_hand():
    """Group 0: means of the others are 4, 3.5, 1.5 -> -3, -1.5, 4.5. Group 1: 0, 4 -> 4, -4."""
    assert_close(advantages("rloo", REWARDS, IDS), torch.tensor([-3.0, -1.5, 4.5, 4.0, -4.0]))


def test_dr_grpo_by_hand():
    """Group means 3 and 2."""
    assert_close(advantages("dr_grpo", REWARDS, IDS), torch.tensor([-2.0, -1.0, 3.0, 2.0, -2.0]))


def test_grpo_by_hand():
    """Deviations -2 -1 3 over sqrt(14/2) and 2 -2 over sqrt(8/1), each + 1e-4."""
    first, second = math.sqrt(7) + 1e-4, math.sqrt(8) + 1e-4
    expected = torch.tensor([-2 / first, -1 / first, 3 / first, 2 / second, -2 / second])
    assert_close(advantages("grpo", REWARDS, IDS), expected)


def test_grpo_one_success_in_four():
    """[1, 0, 0, 0]: mean 1/4, unbiased variance (9/16 + 3/16) / 3 = 1/4 -> 1.5 and three times -0.5."""
    result = advantages("grpo", [1.0, 0.0, 0.0, 0.0], [5] * 4, eps=0.0)
    assert_close(result, torch.tensor([1.5, -0.5, -0.5, -0.5]))


def test_grpo_scales():
    """All five rewards: mean 2.6, squares 2.56 + 0.36 + 11.56 + 1.96 + 6.76 = 23.2, unbiased variance 5.8."""
    batch = math.sqrt(5.8) + 1e-4
    expected = torch.tensor([-2 / batch, -1 / batch, 3 / batch, 2 / batch, -2 / batch])
    assert_close(advantages("grpo", REWARDS, IDS, scale="batch"), expected)
    assert_close(advantages("grpo", REWARDS, IDS, scale="none"), advantages("dr_grpo", REWARDS, IDS))


def test_grpo_population_and_floor():
    """[0, 2]: population std 1. Floor 0.5 leaves it, floor 4 replaces it; added eps 3 makes 4."""
    for options, divisor in (
        ({"eps": 0.5, "eps_mode": "floor"}, 1),
        ({"eps": 4.0, "eps_mode": "floor"}, 4),
        ({"eps": 3.0, "eps_mode": "add"}, 4),
    ):
        result = advantages("grpo", [0.0, 2.0], [0, 0], unbiased=False, **options)
        assert_close(result, torch.tensor([-1.0, 1.0]) / divisor)


def test_flow_grpo_by_hand():
    """Population variance of all five is 23.2 / 5 = 4.64; of the groups 14/3 and 4."""
    batch = math.sqrt(4.64) + 1e-4
    expected = torch.tensor([-2 / batch, -1 / batch, 3 / batch, 2 / batch, -2 / batch])
    assert_close(advantages("flow_grpo", REWARDS, IDS), expected)
    first, second = math.sqrt(14 / 3) + 1e-4, 2 + 1e-4
    paper = torch.tensor([-2 / first, -1 / first, 3 / first, 2 / second, -2 / second])
    assert_close(advantages("flow_grpo", REWARDS, IDS, global_std=False), paper)


def test_presets_of_the_literature_are_options_of_grpo():
    """flow_grpo is grpo with the batch's population deviation; its paper's form is grpo with the group's."""
    assert torch.equal(
        advantages("flow_grpo", REWARDS, IDS), advantages("grpo", REWARDS, IDS, scale="batch", unbiased=False)
    )
    assert torch.equal(
        advantages("flow_grpo", REWARDS, IDS, global_std=False), advantages("grpo", REWARDS, IDS, unbiased=False)
    )


groups = st.lists(st.lists(st.integers(-50, 50).map(lambda i: i / 4), min_size=2, max_size=6), min_size=1, max_size=5)


@given(groups=groups, unbiased=st.booleans(), mode=st.sampled_from(["add", "floor"]), eps=st.sampled_from([1e-6, 0.1]))
def test_agrees_with_slow_loops(groups, unbiased, mode, eps):
    rewards = [reward for group in groups for reward in group]
    ids = [number for number, group in enumerate(groups) for _ in group]
    deviate = statistics.stdev if unbiased else statistics.pstdev
    batch_std = deviate(rewards)
    expected = {"dr_grpo": [], "rloo": [], "group": [], "batch": []}
    for group in groups:
        std = deviate(group)
        for place, reward in enumerate(group):
            others = group[:place] + group[place + 1 :]
            centred = reward - statistics.fmean(group)
            expected["dr_grpo"].append(centred)
            expected["rloo"].append(reward - statistics.fmean(others))
            for scope, spread in (("group", std), ("batch", batch_std)):
                divisor = spread + eps if mode == "add" else max(spread, eps)
                expected[scope].append(0.0 if len(set(group)) == 1 else centred / divisor)
    options = {"unbiased": unbiased, "eps_mode": mode, "eps": eps}
    found = {
        "dr_grpo": advantages("dr_grpo", rewards, ids),
        "rloo": advantages("rloo", rewards, ids),
        "group": advantages("grpo", rewards, ids, **options),
        "batch": advantages("flow_grpo", rewards, ids, **options),
    }
    for name, values in expected.items():
        # float32 output: 1e-6 relative, and as much of the largest advantage for those near zero
        assert_close(found[name], torch.tensor(values, dtype=torch.float32), rtol=2e-6, atol=1e-5)


@given(successes=st.integers(1, 7), size=st.integers(8, 12))
def test_binary_rewards_have_a_closed_form(successes, size):
    """With p = k/G: a success gets sqrt((1-p)(G-1)/(p G)), a failure -sqrt(p (G-1)/((1-p) G))."""
    share = successes / size
    result = advantages("grpo", [1.0] * successes + [0.0] * (size - successes), [0] * size, eps=0.0)
    assert result[0].item() == pytest.approx(math.sqrt((1 - share) * (size - 1) / (share * size)), rel=1e-6)
    assert result[-1].item() == pytest.approx(-math.sqrt(share * (size - 1) / ((1 - share) * size)), rel=1e-6)
