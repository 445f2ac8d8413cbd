"""Rollouts of one prompt as a tree: which of them share their first k actions.

One primitive, `prefix_ids`: an integer per rollout and depth, equal exactly where group and prefix are equal. Ids are
ranks, not hashes, so nothing collides; they cost one sort of n numbers per position, O(n t log n) in all. A mean over
the rollouts that pass through a node or an edge is then the mean over equal ids (`edge_mean`), and every tree and graph
method is a line of arithmetic on such means.

What a rollout did at a position is an integer: a token, or for denoising the id of a noise draw or tree node. Positions
inside a rollout that the policy did not produce (a tool's answer) are part of the prefix; padding is not.

References:
    The merging of independent rollouts into a tree is TEMPO's, arXiv:2509.18314.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.groups import group_codes, group_mean, group_min, group_size


@dataclass(frozen=True)
class PrefixTree:
    """Rollouts merged where they agree.

    Attributes:
        nodes: id of the node before the first unit and after each; a rollout that has ended keeps the id of its end.
        alive: units that exist, a prefix of each row.
    """

    nodes: Int[Tensor, "n t1"]
    alive: Bool[Tensor, "n t"]

    @property
    def parents(self) -> Int[Tensor, "n t"]:
        """Node before each unit."""
        return self.nodes[:, :-1]

    @property
    def edges(self) -> Int[Tensor, "n t"]:
        """Node after each unit, which names the edge into it."""
        return self.nodes[:, 1:]

    @property
    def visited(self) -> Bool[Tensor, "n t1"]:
        """Where `nodes` is a node on the rollout's way and not the repeated end."""
        return torch.cat([torch.ones_like(self.alive[:, :1]), self.alive], dim=1)

    @property
    def ends(self) -> Int[Tensor, "n"]:
        """Node at which each rollout ends."""
        return self.nodes[:, -1]


def prefix_tree(inputs: AdvantageInputs, trained: Bool[Tensor, "n t"]) -> PrefixTree:
    """The tree of `step_key`, or of `token_ids` where no step keys are given."""
    keys = inputs.token_ids if inputs.step_key is None else inputs.step_key
    if keys is None:
        raise ValueError("a prefix tree needs `token_ids` or `step_key`: what each rollout did at each position.")
    alive = reach(trained)
    return PrefixTree(nodes=prefix_ids(keys, alive, inputs.ids), alive=alive)


def reach(trained: Bool[Tensor, "n t"]) -> Bool[Tensor, "n t"]:
    """Positions up to and including the last trained one: the rollout with its holes, without padding."""
    return trained.flip(1).cumsum(dim=1).flip(1) > 0


def prefix_ids(
    keys: Int[Tensor, "n t"], alive: Bool[Tensor, "n t"], group_ids: Int[Tensor, "n"]
) -> Int[Tensor, "n t1"]:
    """Node ids: rows have equal ids in column d exactly if their groups and first d keys are equal.

        id[:, 0] = rank of the group,    id[:, d+1] = rank of (id[:, d], key[:, d]) among the rows that are alive at d

    Args:
        keys: identity of the action; what stands where `alive` is false does not matter.
        alive: a prefix of each row (see `reach`).
        group_ids: rows of different groups never share a node.

    Returns:
        int64, small, unique over depths; a row that has ended keeps its last id, which no longer row gets.
    """
    n, length = keys.shape
    keys, span = _non_negative(torch.where(alive, keys.long(), 0))
    rows = torch.arange(n, device=keys.device)
    rank, fresh = group_codes(group_ids)
    columns = [rank]
    for depth in range(length):
        live = alive[:, depth]
        # An ended row takes a number that no living row can have, so that one sort serves all.
        distinct, rank = torch.unique(torch.where(live, rank * span + keys[:, depth], -1 - rows), return_inverse=True)
        columns.append(torch.where(live, fresh + rank, columns[-1]))
        fresh += len(distinct)
        if len(distinct) == n:  # nobody shares a prefix any more: the rest needs no sorting
            return torch.cat([torch.stack(columns, dim=1), _apart(columns[-1], alive[:, depth + 1 :], fresh)], dim=1)
    return torch.stack(columns, dim=1)


def edge_mean(
    values: Float[Tensor, "n"] | Float[Tensor, "n t"], edges: Int[Tensor, "n t"], where: Bool[Tensor, "n t"]
) -> Float[Tensor, "n t"]:
    """Mean over all members of an edge, float64.

    Args:
        values: one per rollout or one per rollout and unit, any unit; NaN is left out.
        edges: equal ids are one edge; a rollout that takes an edge twice is two members.
        where: members that count.
    """
    spread = values.unsqueeze(1).expand(edges.shape) if values.ndim == 1 else values
    return group_mean(spread.flatten(), edges.flatten(), where.flatten()).reshape(edges.shape)


def edge_size(edges: Int[Tensor, "n t"], where: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """Number of members of each edge among those where `where` is true."""
    return group_size(edges.flatten(), where.flatten()).reshape(edges.shape)


def first_members(edges: Int[Tensor, "n t"], where: Bool[Tensor, "n t"]) -> Bool[Tensor, "n t"]:
    """One member of each edge, the first in row order: statistics over *edges* count these only."""
    place = torch.arange(edges.numel(), device=edges.device)
    first = group_min(place.double(), edges.flatten(), where.flatten())
    return (first == place).reshape(edges.shape) & where


def node_means(tree: PrefixTree, values: Float[Tensor, "n"]) -> Float[Tensor, "n t1"]:
    """V(node) = mean value of the rollouts that pass through it or end there; column 0 is the group's mean."""
    return edge_mean(values, tree.nodes, tree.visited)


def _non_negative(keys: Int[Tensor, "n t"]) -> tuple[Int[Tensor, "n t"], int]:
    """Keys from 0 on, and their number; ranks where rank * number would leave int64."""
    if keys.numel() == 0:
        return keys, 1
    low, high = (int(bound) for bound in keys.aminmax())
    if (high - low + 1) * (len(keys) + 1) < 2**62:
        return keys - low, high - low + 1
    distinct, codes = torch.unique(keys, return_inverse=True)
    return codes, len(distinct)


def _apart(last: Int[Tensor, "n"], alive: Bool[Tensor, "n t"], fresh: int) -> Int[Tensor, "n t"]:
    """Ids behind the depth at which every row has a node of its own."""
    n, length = alive.shape
    if length == 0:
        return last.new_zeros(n, 0)
    own = fresh + torch.arange(n * length, device=last.device).reshape(length, n).T
    steps = alive.sum(dim=1, keepdim=True)
    place = torch.arange(length, device=last.device).expand(n, -1).minimum((steps - 1).clamp(min=0))
    return torch.where(steps > 0, own.gather(1, place), last.unsqueeze(1))
