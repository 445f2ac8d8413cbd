"""Steps of an agent in an environment: which positions belong to a step, and in which state it was taken.

States and actions are integers per step (`state_key`, `action_key`), canonical codes made by whoever knows the
environment: timestamps and spaces stripped, the action parsed out of the reasoning around it. A step is a turn
(`turn_id` counts the columns of `state_key` from 0, or `turn_end`); without turns each position is a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from align.advantages.credit.units import unit_exists, units_from_ends
from align.advantages.inputs import AdvantageInputs


@dataclass(frozen=True)
class Steps:
    """Steps of each rollout.

    Attributes:
        of_position: step of each trained position, -1 elsewhere.
        exists: steps that have a position.
        states: state before each step and, if it was given, after the last: s or s + 1 columns.
    """

    of_position: Int[Tensor, "n t"]
    exists: Bool[Tensor, "n s"]
    states: Int[Tensor, "n s1"]

    @property
    def before(self) -> Int[Tensor, "n s"]:
        """State before each step."""
        return self.states[:, : self.exists.shape[1]]


def steps_of(inputs: AdvantageInputs, trained: Bool[Tensor, "n t"], kind: str) -> Steps:
    """Read the steps off `state_key` and the turns.

    Raises:
        ValueError: there are more steps than states, or neither turns nor one state per position.
    """
    states = inputs.tensor("state_key")
    of_position, count = _numbered(inputs, trained, states.shape[1], kind)
    if count > states.shape[1]:
        raise ValueError(
            f"{kind}: a sample has {count} steps but `state_key` has {states.shape[1]} columns. Give the state before "
            "each step and, as one more column, after the last; `turn_id` counts these columns from 0."
        )
    return Steps(of_position=of_position, exists=unit_exists(of_position, count), states=states)


def _numbered(
    inputs: AdvantageInputs, trained: Bool[Tensor, "n t"], columns: int, kind: str
) -> tuple[Int[Tensor, "n t"], int]:
    """Step of each position and the number of steps of the longest row."""
    if inputs.turn_id is not None:
        steps = torch.where(trained, inputs.turn_id.long(), -1)
    elif inputs.turn_end is not None:
        steps = units_from_ends(inputs.turn_end, trained)
    elif columns in (trained.shape[1], trained.shape[1] + 1):
        places = torch.arange(trained.shape[1], device=trained.device)
        return torch.where(trained, places, -1), trained.shape[1]
    else:
        raise ValueError(
            f"{kind}: `state_key` has {columns} columns for {trained.shape[1]} positions. Without turns each position "
            "is a step and needs a state (and one after the last); else pass `turn_id` or `turn_end`."
        )
    return steps, int(steps.max()) + 1
