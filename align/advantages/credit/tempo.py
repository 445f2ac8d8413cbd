"""TEMPO: GRPO plus a temporal difference at the tokens where rollouts of a prompt branch.

RECONSTRUCTION: no code is published and the paper's equation could not be read; a review confirms that the difference
is divided by the group's standard deviation.

    V(s)   = mean reward of the rollouts of the prompt that begin with s;   V(empty) = m
    A_it   = [ (r_i - m)  +  (V(s_i,t+1) - V(s_it)) ] / (std + eps)          s_it: the first t tokens of rollout i

The difference is not 0 only where at least two different continuations exist; elsewhere this *is* GRPO, and free-form
texts at temperature 1 share little more than their first words. It earns its keep with forced branching (trees of
denoising steps), low temperature or structured answers: watch `branching_share`.

References:
    Tran et al., "Exploiting Tree Structure for Credit Assignment in RL Training of LLMs", arXiv:2509.18314.
    Equation number not checked.

Note:
    A rollout that ends where another goes on counts END as a child, and stopping itself earns no difference. A
    difference at a masked position (a tool's answer) is luck of the environment and is dropped. Both are our
    readings. `loo=True` leaves rollout i out of m and of V(s_it), but not of V(s_i,t+1): an unbiased baseline.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.credit.prefix import PrefixTree, edge_size, node_means, prefix_tree
from align.advantages.credit.tree_values import branching, differences, parent_is_constant
from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.advantages.rloo import rloo
from align.config.group_relative import Rloo
from align.config.trees import Tempo
from align.groups import group_std


@estimator(Tempo)
def tempo(inputs: AdvantageInputs, options: Tempo) -> AdvantageResult:
    """Group z-score of the rollout plus the difference its token makes, in the same standard deviations."""
    trained = trained_positions(inputs)
    tree = prefix_tree(inputs, trained)
    values = node_means(tree, inputs.rewards)
    outcome = rloo(inputs, Rloo()) if options.loo else group_centred(inputs.rewards, inputs.ids)
    difference = (
        _without_self(tree, values, inputs.rewards) if options.loo else differences(tree, values, inputs.rewards)
    )
    std = group_std(inputs.rewards, inputs.ids, unbiased=options.unbiased) + options.eps
    return AdvantageResult(
        advantages=(outcome.unsqueeze(1) + difference) / std.unsqueeze(1),
        stats={"branching_share": float((branching(tree) > 1)[trained].double().mean())},
    )


def _without_self(tree: PrefixTree, values: Float[Tensor, "n t1"], rewards: Float[Tensor, "n"]) -> Float[Tensor, "n t"]:
    """V(node after) - mean reward of the *other* rollouts through the node before; 0 where there are none."""
    visits = edge_size(tree.nodes, tree.visited)[:, :-1].double()
    others = (visits * values[:, :-1] - rewards.unsqueeze(1)) / (visits - 1)
    silent = (visits < 2) | parent_is_constant(tree, rewards) | ~tree.alive
    return torch.where(silent, 0.0, values[:, 1:] - others)
