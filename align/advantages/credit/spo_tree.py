"""SPO-tree: what a segment is worth, from the other segments that were tried at the same point.

From each node B children of at most M tokens are sampled; a child that finished early is a leaf.

    V(leaf) = reward,      V(node) = mean of the values of its children
    A(edge to child c of p) = V(c) - V(p)            or divided by (population std of the siblings + eps)

A mean of means, not of leaves: they differ in unbalanced trees. Each position of a segment gets its segment's number.

Rollouts here are the root-to-leaf paths. Their tree is read off `step_key` (ids of tree nodes: exact even where two
children happen to be equal) or off `token_ids`; segments are those of `seg_id`, or single positions. An edge that m
rollouts share appears m times: weigh it by `aux["edge_share"]` = 1 / m to train it once, as the paper does, and drop
the edges whose advantage is 0 (exactly 0 here where all leaves below the parent are equal).

References:
    Guo et al., "Segment Policy Optimization", arXiv:2505.23564, the tree-based segment advantage.
    Equation number not checked.

Note:
    The release calls the undivided form `rloo`, but its mean includes the child itself: it is (n-1)/n of leave-one-out,
    which `loo=True` gives. With `token_ids`, children that were sampled alike are one child, so that likely
    continuations count too little; `step_key` keeps them apart. The release's divided form is `scale="std"`. The
    optional prover term of the code is not built.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.credit.prefix import PrefixTree, edge_size, first_members, prefix_tree
from align.advantages.credit.tree_values import branching, differences, node_values
from align.advantages.credit.units import (
    broadcast,
    last_of_units,
    trained_positions,
    units_from_labels,
)
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.trees import SpoTree
from align.groups import group_is_constant, group_std


@estimator(SpoTree)
def spo_tree(inputs: AdvantageInputs, options: SpoTree) -> AdvantageResult:
    """Value of a node minus its parent's, on the positions of the segment between them."""
    trained = trained_positions(inputs)
    tree = prefix_tree(inputs, trained)
    segments = torch.arange(trained.shape[1], device=trained.device).expand_as(trained)
    if inputs.seg_id is not None:
        segments = units_from_labels(inputs.seg_id, trained)
        tree = _at_segment_ends(tree, segments)
    values = node_values(tree, inputs.rewards, "children")
    advantages = differences(tree, values, inputs.rewards)
    if options.loo:
        children = branching(tree).double()
        advantages = advantages * children / (children - 1).clamp(min=1)
    if options.scale == "std":
        advantages = _in_sibling_deviations(tree, values[:, 1:], advantages, options.eps)
    share = 1.0 / edge_size(tree.edges, tree.alive).double().clamp(min=1)
    return AdvantageResult(
        advantages=broadcast(advantages, segments),
        aux={"edge_share": torch.where(trained, broadcast(share, segments), 0.0)},
        stats={"branching_share": float((branching(tree) > 1)[tree.alive].double().mean())},
    )


def _at_segment_ends(tree: PrefixTree, segments: Int[Tensor, "n t"]) -> PrefixTree:
    """The same tree, read at the ends of segments only."""
    last = last_of_units(segments)
    exists = last >= 0
    after = tree.nodes.gather(1, (last + 1).clamp(min=0))
    nodes = torch.where(exists, after, tree.ends.unsqueeze(1))
    return PrefixTree(nodes=torch.cat([tree.nodes[:, :1], nodes], dim=1), alive=exists)


def _in_sibling_deviations(
    tree: PrefixTree, values: Float[Tensor, "n t"], advantages: Float[Tensor, "n t"], eps: float
) -> Float[Tensor, "n t"]:
    """Divide by the population standard deviation over the children of a node, each child once."""
    flat, parents, once = values.flatten(), tree.parents.flatten(), first_members(tree.edges, tree.alive).flatten()
    std = group_std(flat, parents, unbiased=False, where=once)
    silent = group_is_constant(flat, parents, once)
    return torch.where(silent.reshape(values.shape), 0.0, advantages / (std.reshape(values.shape) + eps))
