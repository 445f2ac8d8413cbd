"""Do the estimators point along the true policy gradient? A bandit tree of three binary choices with known values."""

import pytest
import torch

from align.advantages import AdvantageInputs, estimate

GROUPS, SIZE = 6000, 4
PROBABILITY = torch.tensor([0.5, 0.3, 0.6, 0.5, 0.7, 0.4, 0.5], dtype=torch.float64)  # of going right, node by node
REWARD = torch.tensor([0.1, 0.9, 0.2, 0.4, 1.0, 0.0, 0.6, 0.7], dtype=torch.float64)  # of the eight leaves


def true_gradient():
    """Of the expected reward with respect to each node's logit: P(node) p (1 - p) (Q(right) - Q(left))."""
    value = torch.cat([torch.zeros(7, dtype=torch.float64), REWARD])
    reached = torch.ones(15, dtype=torch.float64)
    for node in reversed(range(7)):
        value[node] = (1 - PROBABILITY[node]) * value[2 * node + 1] + PROBABILITY[node] * value[2 * node + 2]
    for node in range(7):
        reached[2 * node + 1] = reached[node] * (1 - PROBABILITY[node])
        reached[2 * node + 2] = reached[node] * PROBABILITY[node]
    nodes = torch.arange(7)
    slope = value[2 * nodes + 2] - value[2 * nodes + 1]
    return reached[:7] * PROBABILITY * (1 - PROBABILITY) * slope


@pytest.fixture(scope="module")
def sampled():
    """Rollouts, and the gradient of each choice's log-probability with respect to its node's logit."""
    generator = torch.Generator().manual_seed(0)
    n = GROUPS * SIZE
    nodes, choices = [torch.zeros(n, dtype=torch.int64)], []
    for _ in range(3):
        right = torch.rand(n, generator=generator) < PROBABILITY[nodes[-1]]
        choices.append(right.long())
        nodes.append(2 * nodes[-1] + 1 + choices[-1])
    visited, chosen = torch.stack(nodes[:3], dim=1), torch.stack(choices, dim=1)
    inputs = AdvantageInputs(
        rewards=REWARD[nodes[3] - 7], group_ids=torch.arange(n) // SIZE, mask=torch.ones(n, 3), token_ids=chosen
    )
    return inputs, visited, chosen - PROBABILITY[visited]


def mean_gradient(sampled, kind, **options):
    inputs, visited, score = sampled
    advantages = estimate(kind, inputs, **options).advantages.double()
    spread = advantages.unsqueeze(1).expand(score.shape) if advantages.ndim == 1 else advantages
    total = torch.zeros(7, dtype=torch.float64).index_add_(0, visited.flatten(), (spread * score).flatten())
    return total / len(score)


@pytest.mark.parametrize(
    ("kind", "options", "least"),
    [
        ("dr_grpo", {}, 0.93),
        ("rloo", {}, 0.93),
        ("salt", {"trajectory": "dr_grpo"}, 0.93),
        ("salt", {"trajectory": "rloo"}, 0.93),
        ("tempo", {}, 0.93),
        ("tempo", {"loo": True}, 0.93),
        ("branch_grpo", {}, 0.93),
        # Children that are equal by chance are one child here, so likely choices count too little in the mean.
        ("spo_tree", {}, 0.85),
        ("spo_tree", {"loo": True}, 0.85),
    ],
    ids=str,
)
def test_credit_points_along_the_gradient(sampled, kind, options, least):
    """24,000 rollouts leave a few degrees of noise."""
    found, truth = mean_gradient(sampled, kind, **options), true_gradient()
    assert float(found @ truth / (found.norm() * truth.norm())) > least


def test_leaving_oneself_out_keeps_the_size_and_a_mean_with_oneself_shrinks_it(sampled):
    """E[gradient] is the truth for RLOO and (G - 1) / G of it for the plain group mean."""
    truth = true_gradient()
    for kind, size in (("rloo", 1.0), ("dr_grpo", (SIZE - 1) / SIZE)):
        assert float(mean_gradient(sampled, kind) @ truth / (truth @ truth)) == pytest.approx(size, abs=0.05)
