"""Positions and the units they form: reasoning steps, segments, turns.

A unit number is an integer per position: 0, 1, ... along the row, -1 where nothing is trained. What happens to a unit
is a column of a `[n, k]` tensor.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs


def trained_positions(inputs: AdvantageInputs) -> Bool[Tensor, "n t"]:
    """The mask as booleans."""
    if inputs.mask is None:
        raise ValueError("`mask` is not given. Say which positions the policy produced: 1 there, 0 elsewhere.")
    return inputs.mask != 0


def last_position(trained: Bool[Tensor, "n t"]) -> Int[Tensor, "n"]:
    """Column of the last trained position; -1 for a row without one."""
    columns = torch.arange(trained.shape[1], device=trained.device)
    return torch.where(trained, columns, -1).amax(dim=1) if trained.shape[1] else trained.new_zeros(len(trained)) - 1


def placed_rewards(inputs: AdvantageInputs, trained: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """`token_rewards` at trained positions; without them, the reward on the last trained position."""
    if inputs.token_rewards is not None:
        return torch.where(trained, inputs.token_rewards, 0.0)
    return at_last(inputs.rewards, trained)


def at_last(values: Float[Tensor, "n"], trained: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """A number per row on its last trained position, 0 elsewhere."""
    columns = torch.arange(trained.shape[1], device=trained.device)
    return torch.where(columns == last_position(trained).unsqueeze(1), values.unsqueeze(1), 0.0)


def turns_of(inputs: AdvantageInputs, trained: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """Turn of each trained position, from `turn_id` or `turn_end`."""
    if inputs.turn_id is not None:
        return units_from_labels(inputs.turn_id, trained)
    if inputs.turn_end is not None:
        return units_from_ends(inputs.turn_end, trained)
    raise ValueError("turns are not given. Pass `turn_id` (turn of each position) or `turn_end` (its last position).")


def units_from_labels(labels: Int[Tensor, "n t"], trained: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """A new unit begins at each trained position whose label is not that of the trained position before it."""
    columns = torch.arange(trained.shape[1], device=trained.device)
    latest = torch.where(trained, columns, -1).cummax(dim=1).values
    before = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], dim=1)
    begins = trained & ((before < 0) | (labels != labels.gather(1, before.clamp(min=0))))
    return torch.where(trained, begins.cumsum(dim=1) - 1, -1)


def units_from_ends(ends: Bool[Tensor, "n t"], trained: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """A unit goes up to and including its end; the last trained position closes the last one."""
    closed = (ends & trained).long()
    return torch.where(trained, closed.cumsum(dim=1) - closed, -1)


def runs(trained: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """Contiguous runs of trained positions."""
    begins = trained & ~torch.cat([torch.zeros_like(trained[:, :1]), trained[:, :-1]], dim=1)
    return torch.where(trained, begins.cumsum(dim=1) - 1, -1)


def unit_sum(values: Float[Tensor, "n t"], units: Int[Tensor, "n t"], count: int | None = None) -> Float[Tensor, "n k"]:
    """Sum of the values of each unit's positions. `count`: number of columns, by default as many as the longest row."""
    total = values.new_zeros(len(values), unit_count(units) if count is None else count)
    return total.scatter_add_(1, units.clamp(min=0), torch.where(units >= 0, values, 0.0))


def unit_exists(units: Int[Tensor, "n t"], count: int | None = None) -> Bool[Tensor, "n k"]:
    """Which units have a position."""
    return unit_sum(torch.ones_like(units, dtype=torch.float64), units, count) > 0


def unit_count(units: Int[Tensor, "n t"]) -> int:
    """Columns needed for the units of the longest row, at least 1."""
    return int(units.max()) + 1 if units.numel() and int(units.max()) >= 0 else 1


def last_of_units(units: Int[Tensor, "n t"]) -> Int[Tensor, "n k"]:
    """Column of the last position of each unit; -1 for a unit that does not exist."""
    columns = torch.arange(units.shape[1], device=units.device).expand_as(units)
    last = torch.full((len(units), unit_count(units)), -1, device=units.device)
    return last.scatter_reduce(1, units.clamp(min=0), torch.where(units >= 0, columns, -1), "amax")


def broadcast(values: Float[Tensor, "n k"], units: Int[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """A unit's number at each of its positions, 0 outside."""
    return torch.where(units >= 0, values.gather(1, units.clamp(min=0)), 0.0)
