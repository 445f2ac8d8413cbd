"""BranchGRPO: a denoising tree; each node is compared with the nodes of its own depth.

Rollouts of a prompt share their noise up to a split and differ behind it. Leaves are pictures with rewards.

    V(node) = mean over the leaves below it        (or its children weighted by softmax of their edges' log-probability)
    A(edge) = (V(child) - mean of V at this depth) / (std of V at this depth + 1e-8),      clipped to [-5, 5]

Statistics are over the *nodes* of a depth of the tree, each once, unbiased; a depth with one node, or with a standard
deviation below 1e-6, gives 0. Early steps thus get as much signal as late ones, which averaging leaves (`tree_grpo`)
does not give them.

A tree is a group: give the trees of one prompt ids of their own if they start from different noise. An edge is named by
`step_key`, the id of the noise draw or tree node (never a hash of floats). Steps of a deterministic sampler are masked:
they hand on credit and receive none. An edge that m rollouts share appears m times: weigh it by
`aux["edge_share"]` = 1 / m to train it once, as the paper does.

References:
    Li et al., "BranchGRPO: Stable and Efficient GRPO with Structured Branching in Diffusion Models", arXiv:2509.06040,
    the depth-wise advantage; constants of the released code. Equation number not checked.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.credit.prefix import PrefixTree, edge_size, first_members, prefix_tree
from align.advantages.credit.standard import z_score
from align.advantages.credit.tree_values import node_values
from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.trees import BranchGrpo
from align.groups import group_std


@estimator(BranchGrpo)
def branch_grpo(inputs: AdvantageInputs, options: BranchGrpo) -> AdvantageResult:
    """z-score of a node's value among the nodes of its depth."""
    trained = trained_positions(inputs)
    tree = prefix_tree(inputs, trained)
    values = node_values(tree, inputs.rewards, options.node_value, inputs.logprobs)[:, 1:]
    advantages = among_nodes_of_a_depth(tree, values, inputs.ids, options)
    if options.clip is not None:
        advantages = advantages.clamp(-options.clip, options.clip)
    share = 1.0 / edge_size(tree.edges, tree.alive).double().clamp(min=1)
    return AdvantageResult(advantages=advantages, aux={"edge_share": torch.where(trained, share, 0.0)})


def among_nodes_of_a_depth(
    tree: PrefixTree, values: Float[Tensor, "n t"], ids: Int[Tensor, "n"], options: BranchGrpo
) -> Float[Tensor, "n t"]:
    """(V - mean) / (std + eps) over the distinct nodes of each depth, on all rollouts that pass through them."""
    width = values.shape[1]
    depths = ids.unsqueeze(1) * width + torch.arange(width, device=ids.device)
    once = first_members(tree.edges, tree.alive)
    scores = z_score(values, depths, once, unbiased=options.unbiased, eps=options.eps)
    std = group_std(values.flatten(), depths.flatten(), unbiased=options.unbiased, where=once.flatten())
    return torch.where(std.reshape(values.shape) < options.smallest_std, 0.0, scores)
