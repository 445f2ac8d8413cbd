"""Stepwise gain: what each denoising step added to the reward of the implied picture."""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

tensor = torch.tensor


def ways(rewards, mask=None, ids=None, **fields):
    """Rollouts with these rewards along their way; the last one is the picture's."""
    rewards = tensor(rewards)
    n, columns = rewards.shape
    return AdvantageInputs(
        rewards=fields.pop("final", rewards[:, -1]),
        group_ids=torch.zeros(n).long() if ids is None else tensor(ids),
        mask=torch.ones(n, columns - 1) if mask is None else tensor(mask),
        done_reward_seq=rewards,
        **fields,
    )


PAIR = [[0.0, 0.5, 0.75], [0.25, 0.25, 0.75]]
"""Gains .5 .25 and 0 .5, the same final reward."""


def test_per_step_by_hand():
    """Step 1: gains .5 and 0, mean .25, unbiased std .5 / sqrt 2: +-.7071. Step 2: .25 and .5: -+.7071."""
    z = math.sqrt(0.5)
    assert_close(estimate("stepwise_gain", ways(PAIR), eps=0.0).advantages, tensor([[z, -z], [-z, z]]))


def test_jointly_by_hand():
    """Gains .5 .25 0 .5: mean 5/16, squares of deviations in 1/256: 9 + 1 + 25 + 9 = 44, population std sqrt(11)/16."""
    found = estimate("stepwise_gain", ways(PAIR), pools="joint", unbiased=False, eps=0.0).advantages
    assert_close(found, tensor([[3.0, -1.0], [-5.0, 3.0]]) / math.sqrt(11))


def test_eps_by_hand():
    """Population std of .5 and 0 is .25: .25 / (.25 + .25) = .5."""
    found = estimate("stepwise_gain", ways(PAIR), unbiased=False, eps=0.25).advantages
    assert_close(found[:, 0], tensor([0.5, -0.5]))


def test_equal_gains_at_a_step_are_exactly_zero():
    """The first step adds a quarter to both, wherever they were; the second tells them apart."""
    found = estimate("stepwise_gain", ways([[0.0, 0.25, 1.0], [0.5, 0.75, 0.5]]), eps=0.0).advantages
    assert (found[:, 0] == 0).all()
    assert found[0, 1] > 0 > found[1, 1]
    same = ways([[0.0, 0.25, 0.5], [0.5, 0.75, 1.0]])
    assert (estimate("stepwise_gain", same, pools="joint", eps=0.0).advantages == 0).all()


def slow(rows, ids, mask, pools, unbiased, eps):
    """The definition in plain Python, sample by sample."""
    n, steps = len(ids), len(mask[0])
    gains = [[row[k + 1] - row[k] for k in range(steps)] for row in rows]
    expected = [[0.0] * steps for _ in range(n)]
    for i in range(n):
        for k in range(steps):
            where = range(steps) if pools == "joint" else [k]
            pool = [gains[o][c] for o in range(n) for c in where if ids[o] == ids[i] and mask[o][c]]
            if mask[i][k] and len(pool) > 1:
                mean = sum(pool) / len(pool)
                std = math.sqrt(sum((g - mean) ** 2 for g in pool) / (len(pool) - unbiased))
                expected[i][k] = (gains[i][k] - mean) / (std + eps)
    return expected


@pytest.fixture
def many():
    """Three interleaved groups of unequal size, five steps, a hole."""
    generator = torch.Generator().manual_seed(3)
    rewards = torch.rand(12, 6, generator=generator, dtype=torch.float64)
    mask = torch.ones(12, 5).long()
    mask[::4, 2] = 0
    return rewards.tolist(), mask.tolist(), [7, -2, 7, 5, -2, 7, 5, 7, -2, 5, 7, -2]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("pools", ["step", "joint"])
def test_against_a_slow_loop(many, pools, unbiased):
    rewards, mask, ids = many
    inputs = ways(rewards, mask, ids)
    inputs = AdvantageInputs(
        rewards=inputs.rewards, group_ids=inputs.group_ids, mask=inputs.mask,
        done_reward_seq=tensor(rewards, dtype=torch.float64),
    )  # fmt: skip
    found = estimate("stepwise_gain", inputs, pools=pools, unbiased=unbiased, eps=1e-3).advantages
    expected = slow(rewards, ids, mask, pools, unbiased, 1e-3)
    assert_close(found, tensor(expected), rtol=1e-5, atol=1e-6)


def test_rows_in_another_order(many):
    rewards, mask, ids = many
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = ways(*([part[row] for row in order] for part in many[:2]), [ids[row] for row in order])
    found, expected = (estimate("stepwise_gain", given).advantages for given in (shuffled, ways(rewards, mask, ids)))
    assert_close(found, expected[order])


def test_an_unscored_picture_on_the_way_takes_its_sample_out():
    """The other two are compared as if it were not there."""
    whole = ways([*PAIR, [0.0, math.nan, 1.0]])
    found = estimate("stepwise_gain", whole)
    assert torch.equal(found.advantages[:2], estimate("stepwise_gain", ways(PAIR)).advantages)
    assert (found.advantages[2] == 0).all()
    assert found.stats["unscored"] == 1


def test_a_common_shift_of_each_way_changes_nothing():
    """A sample that starts from a better noise is not credited for it; eighths are exact."""
    lifted = [[reward + 0.125 for reward in PAIR[0]], PAIR[1]]
    found, expected = (estimate("stepwise_gain", ways(given)).advantages for given in (lifted, PAIR))
    assert torch.equal(found, expected)


def test_a_group_of_one():
    assert (estimate("stepwise_gain", ways(PAIR, ids=[0, 1])).advantages == 0).all()
    with pytest.raises(ValueError, match="stepwise_gain needs at least 2 scored samples"):
        estimate("stepwise_gain", ways(PAIR, ids=[0, 1]), singleton="error")


def test_one_reward_more_than_steps():
    with pytest.raises(ValueError, match=r"`done_reward_seq` must have shape \[2, 4\] .* 3 steps, found \[2, 3\]"):
        ways(PAIR, mask=[[1, 1, 1]] * 2)
    with pytest.raises(ValueError, match="stepwise_gain needs `done_reward_seq`"):
        estimate("stepwise_gain", AdvantageInputs(rewards=torch.zeros(2), group_ids=torch.zeros(2).long(),
                                                  mask=torch.ones(2, 2)))  # fmt: skip
