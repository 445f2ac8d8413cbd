"""Soft-min over user groups: by hand, at its two ends, and as the gradient that it claims to be."""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.config.group_relative import DrGrpo
from align.config.pipeline import PipelineConfig
from align.config.shapers import UserSoftMin
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable


def inputs(rewards, users, advantages=None):
    ids = torch.arange(len(rewards)) // 2
    given = torch.ones(len(rewards)) if advantages is None else torch.as_tensor(advantages)
    return AdvantageInputs(
        rewards=torch.tensor(rewards), group_ids=ids, user_groups=torch.tensor(users), advantages=given
    )


def test_by_hand():
    """Means 0.2 and 0.4, tau 0.2: factors 1 and e^-1 = 0.3679 over their mean 0.68394: 1.46212 and 0.53788."""
    found = estimate("user_soft_min", inputs([0.1, 0.3, 0.4, 0.4], [0, 0, 1, 1], [1.0, -1.0, 1.0, -1.0]), tau=0.2)
    assert found.advantages.tolist() == pytest.approx([1.46212, -1.46212, 0.53788, -0.53788], abs=1e-5)
    assert found.stats["user_groups/worst"] == pytest.approx(0.2)
    assert found.stats["user_groups/largest_weight"] == pytest.approx(1.46212, abs=1e-5)


def test_the_two_ends():
    """tau -> infinity: nothing changes. tau -> 0: only the worst group (two of six samples, so times 3) is left."""
    given = inputs([0.0, 0.2, 0.5, 0.5, 0.9, 0.9], [4, 4, 7, 7, 9, 9])
    assert_close(estimate("user_soft_min", given, tau=1e9).advantages, torch.ones(6))
    assert estimate("user_soft_min", given, tau=1e-6).advantages.tolist() == pytest.approx([3, 3, 0, 0, 0, 0])
    assert estimate("user_soft_min", given, tau=1e-6, largest=2.0).advantages.tolist() == [2, 2, 0, 0, 0, 0]


def test_it_is_the_gradient_of_the_soft_min_of_means():
    """n dS/dr_i = lambda_h(i) for S = -tau log sum_h (n_h / n) exp(-m_h / tau)."""
    users, tau = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), 0.3
    rewards = torch.rand(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    means = torch.stack([rewards[users == h].mean() for h in range(3)])
    sizes = torch.bincount(users).double()
    (-tau * torch.log((sizes / 8 * torch.exp(-means / tau)).sum())).backward()
    found = estimate("user_soft_min", inputs(rewards.tolist(), users.tolist()), tau=tau).advantages
    assert_close(found.double(), 8 * rewards.grad, rtol=1e-5, atol=1e-6)


def test_samples_of_nobody_keep_their_advantage():
    found = estimate("user_soft_min", inputs([0.0, 0.0, 0.4, 0.4, 9.0, 9.0], [0, 0, 1, 1, -1, -1]), tau=0.4)
    assert found.advantages[4:].tolist() == [1, 1]
    assert found.advantages[:4].mean() == pytest.approx(1)
    alone = inputs([0.0, 1.0], [-1, -1])
    assert estimate("user_soft_min", alone).advantages.tolist() == [1, 1]


def test_positions_of_a_sample_share_its_weight():
    given = inputs([0.1, 0.3, 0.4, 0.4], [0, 0, 1, 1], [[1.0, 2.0]] * 4)
    found = estimate("user_soft_min", given, tau=0.2).advantages
    assert_close(found[:, 1], 2 * found[:, 0])


def test_from_a_reward_of_weight_0():
    """The column `who` is the group; its NaN is nobody. Raw advantages are -+0.1 and -+0.2 (Dr. GRPO)."""
    values = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.6, 1.0], [1.0, 1.0], [0.0, math.nan], [1.0, math.nan]])
    table = RewardTable(names=("r", "who"), values=values, weights=torch.tensor([1.0, 0.0]))
    config = PipelineConfig(base=DrGrpo(), shapers=(UserSoftMin(tau=0.7),), inputs={"user_groups": "who"}, clip=None)
    found = SignalPipeline(config)(table, torch.arange(6) // 2)
    low, high = 2 / (1 + math.exp(-1)), 2 * math.exp(-1) / (1 + math.exp(-1))
    expected = [-0.1 * low, 0.1 * low, -0.2 * high, 0.2 * high, -0.5, 0.5]
    assert found.advantages.tolist() == pytest.approx(expected, abs=1e-6)
    assert "user_groups/worst" in found.stats
