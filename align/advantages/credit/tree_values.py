"""Values of the nodes of a tree from the values of their children, and the difference that an edge makes.

A node's value can be the mean of all rollouts below it (`prefix.node_means`) or the mean of its *children's* values.
They differ where children have different numbers of rollouts. The second is a weighted sum over rollouts: going up,
each node passes on its share of its parent,

    V(node) = sum over rollouts i below it of  r_i * product of the shares of the edges between node and the end of i

so it needs no recursion over depths. A rollout that ends where others go on counts as one more child, END; rollouts
that end at one node share that child.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.prefix import PrefixTree, edge_mean, first_members, node_means
from align.groups import group_is_constant, group_max, group_mean, group_size


def node_values(
    tree: PrefixTree, values: Float[Tensor, "n"], kind: str, logprobs: Float[Tensor, "n t"] | None = None
) -> Float[Tensor, "n t1"]:
    """Values of all nodes on each rollout's way.

    Args:
        tree: of n rollouts.
        values: of the rollouts (leaves), any unit.
        kind: `leaves` = mean of the rollouts below; `children` = mean of the children; `logprob` = children weighted by
            the softmax of the log-probability of their edges.
        logprobs: of each edge, nats; for `logprob`.
    """
    if kind == "leaves":
        return node_means(tree, values)
    shares = _equal_shares(tree)
    if kind == "logprob":
        if logprobs is None:
            raise ValueError("`node_value: logprob` weighs children by `logprobs`, which are not given.")
        shares = _softmax_shares(tree, logprobs, shares)
    return _passed_up(tree, values, shares)


def branching(tree: PrefixTree) -> Int[Tensor, "n t"]:
    """Number of children of the node before each unit, END included."""
    return _children(tree)[0]


def differences(
    tree: PrefixTree, values: Float[Tensor, "n t1"], leaf_values: Float[Tensor, "n"]
) -> Float[Tensor, "n t"]:
    """V(node after) - V(node before), exactly 0 where the node before has one child or all leaves below it are equal.

    Means of equal numbers differ in their last digits; such a difference is no signal.
    """
    silent = parent_is_constant(tree, leaf_values) | (branching(tree) < 2) | ~tree.alive
    return torch.where(silent, 0.0, values[:, 1:] - values[:, :-1])


def parent_is_constant(tree: PrefixTree, leaf_values: Float[Tensor, "n"]) -> Bool[Tensor, "n t"]:
    """Whether all rollouts through the node before each unit have one stored value."""
    spread = leaf_values.unsqueeze(1).expand(tree.nodes.shape)
    constant = group_is_constant(spread.flatten(), tree.nodes.flatten(), tree.visited.flatten())
    return constant.reshape(tree.nodes.shape)[:, :-1]


def _children(tree: PrefixTree) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Children (END included) of the node before each unit and of each rollout's end; rollouts that end there."""
    first = first_members(tree.edges, tree.alive).flatten()
    nodes = torch.cat([tree.parents.flatten(), tree.ends])
    at_end = torch.cat([torch.zeros_like(first), torch.ones_like(tree.ends, dtype=torch.bool)])
    edges = group_size(nodes, torch.cat([first, torch.zeros_like(tree.ends, dtype=torch.bool)]))
    ended = group_size(nodes, at_end)
    count = edges + (ended > 0)
    size = first.numel()
    return count[:size].reshape(tree.alive.shape), count[size:], ended[size:]


def _equal_shares(tree: PrefixTree) -> Float[Tensor, "n t"]:
    return 1.0 / _children(tree)[0].double().clamp(min=1)


def _softmax_shares(
    tree: PrefixTree, logprobs: Float[Tensor, "n t"], equal: Float[Tensor, "n t"]
) -> Float[Tensor, "n t"]:
    """Softmax over the children of a node; END, which has no log-probability, keeps its equal share."""
    first = first_members(tree.edges, tree.alive).flatten()
    parents = tree.parents.flatten()
    edge_logprobs = edge_mean(logprobs, tree.edges, tree.alive).flatten()  # members of an edge differ by rounding only
    weight = (edge_logprobs - group_max(edge_logprobs, parents, first)).exp()
    siblings = group_size(parents, first).double()
    share = (weight / (group_mean(weight, parents, first) * siblings)).reshape(equal.shape)
    return share * equal * siblings.reshape(equal.shape)


def _passed_up(tree: PrefixTree, values: Float[Tensor, "n"], shares: Float[Tensor, "n t"]) -> Float[Tensor, "n t1"]:
    """Sum over the rollouts below a node of their values times the product of the shares on the way down."""
    _, children_at_end, ended = _children(tree)
    at_end = 1.0 / (children_at_end * ended).double()
    ways = torch.where(tree.alive, shares, 1.0).flip(1).cumprod(dim=1).flip(1)
    ways = torch.cat([ways, torch.ones_like(at_end).unsqueeze(1)], dim=1) * at_end.unsqueeze(1)
    nodes, visited = tree.nodes.flatten(), tree.visited.flatten()
    mean = group_mean((values.unsqueeze(1) * ways).flatten(), nodes, visited)
    return (mean * group_size(nodes, visited)).reshape(tree.nodes.shape)
