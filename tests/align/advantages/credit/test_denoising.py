"""Trees of denoising steps: BranchGRPO and TreeGRPO, and where they are something else."""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

tensor = torch.tensor


def tree(rewards, keys, **fields):
    keys = tensor(keys)
    return AdvantageInputs(
        rewards=tensor(rewards),
        group_ids=torch.zeros(len(keys)).long(),
        mask=torch.ones(keys.shape),
        step_key=keys,
        **fields,
    )


LEAVES = tree([1.0, 0.4, 0.2, 0.0], [[0, 0], [0, 1], [1, 2], [1, 3]])
UNEVEN = [[0, 0], [0, 1], [0, 2], [1, 3]]


def test_leaves_and_depths_by_hand():
    """Leaves 1 .4 | .2 0: mean .4, unbiased std .43205 -> 1.389 0 -.463 -.926 at the last step of both.

    First step: nodes .7 and .1 -> +-.7071 by depth; means of leaf scores +-.6944.
    """
    last = [1.3887, 0.0, -0.4629, -0.9258]
    for kind, first in (("branch_grpo", 0.7071), ("tree_grpo", 0.6944)):
        result = estimate(kind, LEAVES)
        expected = tensor([[sign * first, leaf] for sign, leaf in zip([1, 1, -1, -1], last, strict=True)])
        assert_close(result.advantages, expected, atol=1e-4, rtol=0)
        assert result.aux["edge_share"].tolist() == [[0.5, 1.0]] * 4


def test_nodes_count_once_in_a_depth():
    """V 1/3 and 1: +-.7071 although three rollouts pass through the first."""
    found = estimate("branch_grpo", tree([1.0, 0.0, 0.0, 1.0], UNEVEN)).advantages
    z = 1 / math.sqrt(2)
    assert_close(found[:, 0], tensor([-z, -z, -z, z]))


def test_values_of_nodes_by_log_probability():
    """First node: 3/5 * 1 + 1/5 * 0 + 1/5 * 0 = .6 beside 1, or 1/3 by children; the tree's leaf scores likewise."""
    logprobs = tensor([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).log()
    given = tree([1.0, 0.0, 0.0, 1.0], UNEVEN, logprobs=logprobs)
    score = math.sqrt(3) / 2  # (1 - 1/2) / sqrt(1/3)
    for kind, node_value, first in (("tree_grpo", "logprob", 0.2), ("tree_grpo", "children", -1 / 3)):
        found = estimate(kind, given, node_value=node_value).advantages
        assert float(found[0, 0]) == pytest.approx(first * score, rel=1e-5)
    assert float(estimate("branch_grpo", given, node_value="logprob").advantages[0, 0]) == pytest.approx(
        -math.sqrt(0.5)
    )
    with pytest.raises(ValueError, match="branch_grpo needs `logprobs`"):
        estimate("branch_grpo", LEAVES, node_value="logprob")


def test_quiet_depths_and_the_clip():
    """A depth with one node, with equal nodes or with a spread below 1e-6 gives 0; 29 zeros and a one exceed 5."""
    shared = tree([1.0, 0.0], [[7, 0], [7, 1]])
    assert (estimate("branch_grpo", shared).advantages[:, 0] == 0).all()
    close = tree([0.5, 0.5 + 1e-7], [[0], [1]])
    assert (estimate("branch_grpo", close).advantages == 0).all()
    assert (estimate("branch_grpo", close, smallest_std=0.0, eps=0.0).advantages != 0).all()
    many = tree([1.0] + [0.0] * 29, [[i] for i in range(30)])
    assert float(estimate("branch_grpo", many).advantages.max()) == 5
    assert float(estimate("branch_grpo", many, clip=None).advantages.max()) == pytest.approx(
        29 / math.sqrt(30), rel=1e-4
    )


def test_deterministic_steps_hand_on_and_receive_nothing():
    masked = AdvantageInputs(
        rewards=LEAVES.rewards, group_ids=LEAVES.group_ids, mask=tensor([[0, 1]] * 4), step_key=LEAVES.step_key
    )
    for kind in ("branch_grpo", "tree_grpo"):
        assert (estimate(kind, masked).advantages[:, 0] == 0).all()
        assert torch.equal(estimate(kind, masked).advantages[:, 1], estimate(kind, LEAVES).advantages[:, 1])


def test_reductions():
    """Splits at the first step only: BranchGRPO is GRPO. Mean over leaves: TreeGRPO is SALT on whole prefixes."""
    flat = tree([1.0, 0.4, 0.2, 0.0], [[0, 5], [1, 5], [2, 5], [3, 5]])
    grpo = estimate("grpo", flat, eps=1e-8).advantages.unsqueeze(1).expand(4, 2)
    assert_close(estimate("branch_grpo", flat).advantages, grpo)
    assert_close(estimate("tree_grpo", LEAVES, eps=1e-6).advantages, estimate("salt", LEAVES).advantages)


def test_spo_tree_is_the_difference_of_tempo_on_a_full_tree():
    """Balanced: means of leaves are means of children; TEMPO's second term times s."""
    std = float(LEAVES.rewards.std()) + 1e-6
    grpo = estimate("grpo", LEAVES, eps=1e-6).advantages.unsqueeze(1)
    assert_close(estimate("spo_tree", LEAVES).advantages, (estimate("tempo", LEAVES).advantages - grpo) * std)
