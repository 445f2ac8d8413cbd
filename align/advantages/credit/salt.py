"""SALT: rollouts of a prompt as a graph; a step that several of them take gets the mean of their advantages.

SECOND-HAND: no code is published; the formula is confirmed by a follow-up's appendix (GRAFT, A.3). The history rule,
the counting and the canonical form of states are open, hence options.

    A_i    = advantage of rollout i among its group: (r_i - m) / (s + eps), or leave-one-out
    edge   = (state_t, action_t, state_t+1), equal steps of rollouts of one prompt are one edge
    A_it   = mean of A over the members of the edge of step t;   an edge of one rollout keeps A_i

A good move that also occurs in failed rollouts is praised less, a common move gets what it is worth on average. No
extra rollouts, one pass over the steps.

Without `state_key` the state is all that came before, and the graph is the prefix tree of `token_ids` or `step_key`:
then A_it = (V(edge) - m) / s, the mean-of-leaves form of `tree_grpo`.

References:
    Li et al., "SALT: Step-level Advantage Assignment for Long-horizon Agents via Trajectory Graph", arXiv:2510.20022.
    Equation number not checked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.prefix import edge_mean, edge_size, first_members, prefix_ids, prefix_tree, reach
from align.advantages.credit.states import Steps, steps_of
from align.advantages.credit.units import broadcast, trained_positions
from align.advantages.grpo import grpo
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.advantages.rloo import rloo
from align.config.group_relative import Grpo, Rloo
from align.config.trees import Salt

TRAJECTORY: dict[str, Callable[[AdvantageInputs, Salt], Tensor]] = {
    "grpo": lambda inputs, options: grpo(inputs, Grpo(unbiased=options.unbiased, eps=options.eps)),
    "dr_grpo": lambda inputs, options: group_centred(inputs.rewards, inputs.ids),
    "rloo": lambda inputs, options: rloo(inputs, Rloo()),
}


@estimator(Salt)
def salt(inputs: AdvantageInputs, options: Salt) -> AdvantageResult:
    """Advantage of the rollout, averaged over the members of each step's edge."""
    trained = trained_positions(inputs)
    if inputs.state_key is None:
        tree = prefix_tree(inputs, trained)
        edges, exists = tree.edges, tree.alive
        places = torch.where(trained, torch.arange(trained.shape[1], device=trained.device), -1)
    else:
        steps = steps_of(inputs, trained, "salt")
        edges, exists, places = _edges(inputs, steps, options.history), steps.exists, steps.of_position
    counts = exists if options.counting == "occurrence" else _once_per_rollout(edges, exists)
    averaged = edge_mean(TRAJECTORY[options.trajectory](inputs, options), edges, counts)
    shared = edge_size(edges, _once_per_rollout(edges, exists)) > 1
    return AdvantageResult(
        advantages=broadcast(torch.where(exists, averaged, 0.0), places),
        stats={"shared_steps": float(shared[exists].double().mean())},
    )


def _edges(inputs: AdvantageInputs, steps: Steps, history: int | None) -> Int[Tensor, "n s"]:
    """Ids of (prompt, history, state, action, next state)."""
    count = steps.exists.shape[1]
    if steps.states.shape[1] == count:
        raise ValueError(
            f"salt needs the state after the last step, too: `state_key` has {count} columns for {count} steps, "
            f"expected {count + 1}."
        )
    actions = _actions(inputs, count)
    groups = inputs.ids.unsqueeze(1).expand(-1, count)
    moves = joint_ids(steps.before, actions)
    if history is None:
        past = prefix_ids(moves, reach(steps.exists), inputs.ids)[:, :-1]
        return joint_ids(past, moves, steps.states[:, 1 : count + 1])
    earlier = [_shifted(moves, back) for back in range(1, history + 1)]
    return joint_ids(groups, moves, steps.states[:, 1 : count + 1], *earlier)


def _actions(inputs: AdvantageInputs, count: int) -> Int[Tensor, "n s"]:
    """`action_key`, or the keys of positions where each position is a step."""
    for keys in (inputs.action_key, inputs.step_key, inputs.token_ids):
        if keys is not None and keys.shape[1] >= count and (keys is inputs.action_key or _one_per_step(inputs)):
            return keys[:, :count]
    raise ValueError(
        f"salt compares steps by state, action and next state: pass `action_key` with {count} columns, one per step "
        "(where each position is a step, `token_ids` or `step_key` will do)."
    )


def _one_per_step(inputs: AdvantageInputs) -> bool:
    return inputs.turn_id is None and inputs.turn_end is None


def _shifted(moves: Int[Tensor, "n s"], back: int) -> Int[Tensor, "n s"]:
    """What happened `back` steps earlier; -1 before the beginning."""
    before = torch.full_like(moves[:, :back], -1)
    return torch.cat([before, moves], dim=1)[:, : moves.shape[1]]


def _once_per_rollout(edges: Int[Tensor, "n s"], exists: Bool[Tensor, "n s"]) -> Bool[Tensor, "n s"]:
    """The first of a rollout's visits of an edge."""
    rows = torch.arange(len(edges), device=edges.device).unsqueeze(1).expand_as(edges)
    return first_members(joint_ids(rows, edges), exists)
