"""ArmoRM's gate: penalties and scores by hand, and the public code's faults, which are not ours."""

import pytest
import torch

from align.order import spearman
from align.rewards.gating import Gate, debiasing, gated_score, penalties


def test_penalties_by_hand():
    """v = 1, 2, 3, 4 and r = 0.5 v: r - p v falls to rank correlation NaN (constant) at p = 0.5 and was 1 before.
    -v never goes along with v: 0. 2 v would need p = 2, which is not on the grid: 1. v itself: 1."""
    v = torch.arange(1.0, 5.0, dtype=torch.float64)
    rewards = torch.stack([0.5 * v, -v, 2 * v, v], dim=1)
    assert penalties(rewards, 3).tolist() == [0.5, 0.0, 1.0, 1.0]


def test_debiased_rewards_by_hand():
    """r = (3, 2), v is the second, p = (0.5, 1): r' = (3 - 1, 0); with g = (0.25, 0.75) the score is 0.5."""
    transform = debiasing(torch.tensor([0.5, 1.0]), 1)
    rewards, gates = torch.tensor([[3.0, 2.0]]), torch.tensor([[0.25, 0.75]])
    assert (rewards @ transform).tolist() == [[2.0, 0.0]]
    assert gated_score(rewards, gates, transform).tolist() == [0.5]
    coefficients = gates @ transform.T  # the same as weights of the rewards themselves; one is negative
    assert coefficients.tolist() == [[0.25, -0.125]]
    assert (coefficients * rewards).sum().item() == pytest.approx(0.5)


def test_what_is_left_does_not_go_along_with_the_penalised_head():
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(200, generator=draw, dtype=torch.float64)
    rewards = torch.stack([0.4 * v + torch.randn(200, generator=draw, dtype=torch.float64), v], dim=1)
    assert spearman(rewards[:, 0], v) > 0.2
    left = rewards @ debiasing(penalties(rewards, 1), 1)
    assert spearman(left[:, 0], v) <= 0.03
    assert left[:, 1].abs().max() == 0


def test_weights_sum_to_the_scale_over_the_heads():
    """Not over the batch, whatever its size: each prompt's gates depend on that prompt alone."""
    torch.manual_seed(0)
    gate = Gate(6, 3, width=8, dropout=0.2, temperature=1.0).eval()
    prompts = torch.randn(5, 6)
    found = gate(prompts)
    assert torch.allclose(found.sum(dim=1), torch.ones(5))
    assert torch.allclose(found[2:3], gate(prompts[2:3]), atol=1e-6)
    assert found.std(dim=0).min() > 1e-4


def test_gradients_reach_scale_and_layers():
    torch.manual_seed(0)
    gate = Gate(4, 2, width=8, depth=1, dropout=0.0)
    gated_score(torch.randn(3, 2), gate(torch.randn(3, 4)), torch.eye(2)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in gate.parameters())
