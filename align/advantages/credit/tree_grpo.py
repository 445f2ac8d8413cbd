"""TreeGRPO for denoising: leaves are compared with each other, and their advantages averaged towards the root.

SECOND-HAND, no training code found: the weights of the average are not known, so they are an option.

    A(leaf) = (r - m) / (std + eps) over the leaves of the prompt, unbiased
    A(node) = mean of A over the leaves below it        (or over its children, or softmax-weighted)

An edge gets its lower node's advantage; steps of a deterministic stretch are masked and stay frozen. With the mean over
leaves this is SALT on whole prefixes. Compared with `branch_grpo`, early edges get small advantages: averages of many
leaves have little spread.

References:
    Ding and Ye, "TreeGRPO: Tree-Advantage GRPO for Online RL Post-Training of Diffusion Models", arXiv:2512.08153.
    Two other papers are called Tree-GRPO and TreeRPO. Equation number not checked.
"""

from __future__ import annotations

import torch

from align.advantages.credit.prefix import edge_size, prefix_tree
from align.advantages.credit.standard import z_score
from align.advantages.credit.tree_values import node_values
from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.trees import TreeGrpo


@estimator(TreeGrpo)
def tree_grpo(inputs: AdvantageInputs, options: TreeGrpo) -> AdvantageResult:
    """Mean z-score of the leaves below each edge; `aux["edge_share"]` = 1 / rollouts that share it."""
    trained = trained_positions(inputs)
    tree = prefix_tree(inputs, trained)
    leaves = z_score(inputs.rewards, inputs.ids, unbiased=options.unbiased, eps=options.eps)
    share = 1.0 / edge_size(tree.edges, tree.alive).double().clamp(min=1)
    return AdvantageResult(
        advantages=node_values(tree, leaves, options.node_value, inputs.logprobs)[:, 1:],
        aux={"edge_share": torch.where(trained, share, 0.0)},
    )
