"""Prefix ids against a dictionary of tuples, and the means over nodes and edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.prefix import (
    PrefixTree,
    edge_mean,
    edge_size,
    first_members,
    node_means,
    prefix_ids,
    reach,
)
from align.advantages.credit.tree_values import branching, differences, node_values

KEYS = st.integers(0, 1)


@st.composite
def forests(draw, most=8, longest=5, keys=KEYS):
    """Ragged rows of few different keys, so that they share prefixes and some end where others go on."""
    n, width = draw(st.integers(1, most)), draw(st.integers(1, longest))
    tokens = torch.tensor(draw(st.lists(st.lists(keys, min_size=width, max_size=width), min_size=n, max_size=n)))
    lengths = torch.tensor(draw(st.lists(st.integers(1, width), min_size=n, max_size=n)))
    ids = torch.tensor(draw(st.lists(st.sampled_from([-5, 0, 7]), min_size=n, max_size=n)))
    rewards = torch.tensor(draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n))).double() / 4
    return tokens, torch.arange(width) < lengths.unsqueeze(1), ids, rewards


def names(tokens, alive, ids):
    """The slow form: each node is a tuple of the group and the tokens so far; a row that has ended stays there."""
    rows = []
    for row, life, group in zip(tokens.tolist(), alive.tolist(), ids.tolist(), strict=True):
        steps = [token for token, lives in zip(row, life, strict=True) if lives]
        rows.append([(group, *steps[: min(depth, len(steps))]) for depth in range(len(row) + 1)])
    return rows


@settings(max_examples=40)
@given(forest=forests(keys=st.sampled_from([0, 1, -(2**62), 2**62])))
def test_ids_are_equal_exactly_where_prefixes_are(forest):
    tokens, alive, ids, _ = forest
    found = prefix_ids(tokens, alive, ids).flatten().tolist()
    expected = [name for row in names(tokens, alive, ids) for name in row]
    assert len(set(zip(found, expected, strict=True))) == len(set(found)) == len(set(expected))


def test_ids_by_hand():
    """Three rows of one group: [5 1], [5 2], [6 1]. Root 0; then 5 -> 1, 6 -> 2; then every row by itself."""
    nodes = prefix_ids(
        torch.tensor([[5, 1], [5, 2], [6, 1]]), torch.ones(3, 2, dtype=torch.bool), torch.zeros(3).long()
    )
    assert nodes.tolist() == [[0, 1, 3], [0, 1, 4], [0, 2, 5]]


def test_what_stands_in_the_padding_does_not_matter():
    alive = torch.tensor([[True, False], [True, True]])
    ids = torch.tensor([0, 0])
    assert torch.equal(
        prefix_ids(torch.tensor([[4, 9], [4, 9]]), alive, ids),
        prefix_ids(torch.tensor([[4, -(2**63)], [4, 9]]), alive, ids),
    )


def test_holes_belong_to_the_rollout_and_padding_does_not():
    trained = torch.tensor([[True, False, True, False], [False, False, False, False]])
    assert reach(trained).tolist() == [[True, True, True, False], [False] * 4]


def test_edge_statistics_by_hand():
    """Edge 7 holds 1, 2 and (not counted) 30; edge 8 holds 5."""
    edges = torch.tensor([[7, 8], [7, 7]])
    values = torch.tensor([[1.0, 5.0], [2.0, 30.0]])
    where = torch.tensor([[True, True], [True, False]])
    assert edge_mean(values, edges, where).tolist() == [[1.5, 5.0], [1.5, 1.5]]
    assert edge_size(edges, where).tolist() == [[2, 1], [2, 2]]
    assert first_members(edges, where).tolist() == [[True, True], [False, False]]
    assert edge_mean(torch.tensor([1.0, 2.0]), edges, where)[:, 0].tolist() == [1.5, 1.5]


@settings(max_examples=40)
@given(forest=forests())
def test_values_of_nodes_against_slow_loops(forest):
    """Mean of rollouts, and mean of children by recursion with END as one more child."""
    tokens, alive, ids, rewards = forest
    tree = PrefixTree(nodes=prefix_ids(tokens, alive, ids), alive=alive)
    rows = names(tokens, alive, ids)
    ends = [row[-1] for row in rows]

    def through(node):
        return [i for i, row in enumerate(rows) if node in row]

    def mean_of_children(node):
        here = [float(rewards[i]) for i in through(node) if ends[i] == node]
        below = {row[len(node)] for row in rows if node in row and len(row) > len(node) and row[len(node)] != node}
        values = [mean_of_children(child) for child in below] + ([sum(here) / len(here)] if here else [])
        return sum(values) / len(values)

    means, children = node_means(tree, rewards), node_values(tree, rewards, "children")
    gained = differences(tree, children, rewards)
    for i, row in enumerate(rows):
        for depth, node in enumerate(row):
            members = [float(rewards[j]) for j in through(node)]
            assert float(means[i, depth]) == pytest.approx(sum(members) / len(members), abs=1e-12)
            assert float(children[i, depth]) == pytest.approx(mean_of_children(node), abs=1e-12)
            if depth < len(row) - 1 and len({float(rewards[j]) for j in through(node)}) == 1:
                assert gained[i, depth] == 0  # exactly: equal leaves make no signal


def test_a_mean_of_children_is_not_a_mean_of_leaves():
    """Node with children c1 (leaves 1, 0, 0) and c2 (leaf 1): children (1/3 + 1) / 2 = 2/3, leaves 2/4.

    With edge log-probabilities log 3 and 0 at the first step c1 weighs 3/4: 3/4 * 1/3 + 1/4 = 1/2.
    """
    tokens = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0]])
    alive = torch.ones(4, 2, dtype=torch.bool)
    tree = PrefixTree(nodes=prefix_ids(tokens, alive, torch.zeros(4).long()), alive=alive)
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0]).double()
    logprobs = torch.tensor([[3.0, 1.0]] * 3 + [[1.0, 1.0]]).double().log()
    root = [float(node_values(tree, rewards, kind, logprobs)[0, 0]) for kind in ("leaves", "children", "logprob")]
    assert root == pytest.approx([1 / 2, 2 / 3, 1 / 2])
    assert branching(tree).tolist() == [[2, 3], [2, 3], [2, 3], [2, 1]]


def test_end_is_a_child():
    """One rollout stops at the root's child [0], two go on: V([0]) = mean(END: 1, [0 0]: 0, [0 1]: 0.5) = 0.5."""
    tokens = torch.tensor([[0, 0], [0, 0], [0, 1]])
    alive = torch.tensor([[True, False], [True, True], [True, True]])
    tree = PrefixTree(nodes=prefix_ids(tokens, alive, torch.zeros(3).long()), alive=alive)
    values = node_values(tree, torch.tensor([1.0, 0.0, 0.5]).double(), "children")
    assert_close(values, torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5]]).double())
    assert branching(tree)[1:].tolist() == [[1, 3], [1, 3]]
    with pytest.raises(ValueError, match="`logprobs`, which are not given"):
        node_values(tree, torch.zeros(3).double(), "logprob")


def test_tuples_of_any_integers_get_one_code_each():
    first = torch.tensor([2**62, 2**62, -(2**62), 0])
    second = torch.tensor([1, 2, 1, 1])
    assert joint_ids(first, second).tolist() == [2, 3, 0, 1]
    assert joint_ids(first[:0], second[:0]).tolist() == []
