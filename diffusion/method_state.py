"""The states of a method's parts in one flat mapping, as a checkpoint takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

State: TypeAlias = Mapping[str, Tensor | int | float | str]


def joined_state(**parts: State) -> State:
    """`part/name` -> value for every value of every part."""
    return {f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()}


def part_of_state(state: State, part: str) -> State:
    """The state of one part, with its own names; empty where that part was not there."""
    prefix = f"{part}/"
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
