"""Bonus for rarely seen states: global novelty times episodic novelty. Off by default.

    b_k = coefficient * 1 / sqrt(1 + N(s'))  * [first visit of s' in this rollout]        s': state after step k
    A'  = A + (b_k - mean of b over the steps of the group)

N(s') counts the rollouts of earlier updates that visited s'. The global factor fades as a state becomes known; the
episodic one keeps an agent from earning it again and again by walking in circles. Either alone fails where the other
helps: episodic counts where every episode has another world, global counts where all share one. Compared within the
group, the bonus moves credit between steps and rollouts and adds none.

State keys are codes of whole states: make them different for different prompts if their worlds differ. The counts are
the shaper's state (`keys`, `counts`) and belong into the checkpoint.

References:
    Henaff et al., "A Study of Global and Episodic Bonuses for Exploration in Contextual MDPs", arXiv:2306.03236,
    which finds their product the robust choice; the count form is the classical one. A small form of our own.
    Equation number not checked.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.prefix import first_members
from align.advantages.credit.standard import centred
from align.advantages.credit.states import Steps, steps_of
from align.advantages.credit.units import broadcast, trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.shapers import NoveltyBonus

State = Mapping[str, Tensor]


@estimator(NoveltyBonus)
def novelty_bonus(inputs: AdvantageInputs, options: NoveltyBonus, state: State) -> AdvantageResult:
    """The base's advantages plus the centred bonus, and the counts of this batch added to the state."""
    trained = trained_positions(inputs)
    base = inputs.tensor("advantages")
    base = base if base.ndim == 2 else base.unsqueeze(1).expand(trained.shape)
    if options.coefficient == 0:
        return AdvantageResult(advantages=base, state=dict(state))
    steps = steps_of(inputs, trained, "novelty_bonus")
    first = first_visits(steps)
    fresh = torch.where(first, (1 + visits(steps.states, state)).rsqrt(), 0.0)[:, 1 : steps.exists.shape[1] + 1]
    missing = steps.exists.shape[1] - fresh.shape[1]  # 1 where the state after the last step is not given
    bonus = options.coefficient * torch.nn.functional.pad(fresh, (0, missing))
    groups = inputs.ids.unsqueeze(1).expand(bonus.shape)
    return AdvantageResult(
        advantages=base + broadcast(centred(bonus, groups, steps.exists), steps.of_position),
        stats={"novelty": float(bonus[steps.exists].mean())},
        state=counted(steps.states[first], state),
    )


def first_visits(steps: Steps) -> Bool[Tensor, "n s1"]:
    """Where a rollout is in a state for the first time."""
    reached = torch.cat([torch.ones_like(steps.exists[:, :1]), steps.exists], dim=1)[:, : steps.states.shape[1]]
    rows = torch.arange(len(reached), device=reached.device).unsqueeze(1).expand_as(reached)
    columns = steps.states[:, : reached.shape[1]]
    first = first_members(joint_ids(rows, columns), reached)
    return torch.nn.functional.pad(first, (0, steps.states.shape[1] - first.shape[1]))


def visits(states: Int[Tensor, "n s1"], state: State) -> Float[Tensor, "n s1"]:
    """N(s): rollouts of earlier updates that visited each state."""
    keys, counts = _table(state, states)
    if len(keys) == 0:
        return torch.zeros(states.shape, dtype=torch.float64, device=states.device)
    place = torch.searchsorted(keys, states.long().contiguous()).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == states, counts[place].double(), 0.0)


def counted(visited: Int[Tensor, "v"], state: State) -> dict[str, Tensor]:
    """The table of counts with these visits added; keys ascend."""
    keys, counts = _table(state, visited)
    every, place = torch.unique(torch.cat([keys, visited.long()]), return_inverse=True)
    added = torch.cat([counts, torch.ones_like(visited, dtype=torch.int64)])
    return {"keys": every, "counts": torch.zeros_like(every).index_add_(0, place, added)}


def _table(state: State, like: Tensor) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    empty = torch.zeros(0, dtype=torch.int64, device=like.device)
    return state.get("keys", empty).to(like.device), state.get("counts", empty).to(like.device)
