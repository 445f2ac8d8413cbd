"""Directions as people give them and as runs draw them: names and numbers in, whole hundredths out.

A direction is kept as the integers that stand for it, 100 times the components of a unit vector: what a prompt prints,
what a label says, and what scores are computed with are then one and the same (`align.shaping.directions`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from align.config.directions import Arc, Cap, Components, Directions, Listed
from align.engine.random import generator
from align.errors import AlignError, did_you_mean
from align.shaping.directions import (
    angle_between,
    from_angle,
    from_integers,
    from_names,
    random_directions,
    to_integers,
)

Vector: TypeAlias = tuple[int, ...]
"""A direction as its prompt shows it: 100 times the components, rounded."""
TOLERANCE = 1.0
"""Degrees beyond the trained directions that rounding explains."""


def vector_of(components: Components, names: Sequence[str]) -> Vector:
    """The integers of a direction given by names, in any length.

    Args:
        components: objective -> component; 0 where one is not named.
        names: of the objectives, in order.

    Raises:
        AlignError: an unknown objective, a direction of length 0, or a number that is not finite.
    """
    unknown = [name for name in components if name not in names]
    if unknown:
        raise AlignError(
            f"the direction names `{unknown[0]}`, which is no objective.{did_you_mean(unknown[0], names)}",
            f"The objectives are {', '.join(names)}.",
        )
    try:
        return tuple(to_integers(from_names(components, names)))
    except ValueError as error:
        shown = ", ".join(f"{name}={value}" for name, value in components.items())
        raise AlignError(f"{shown or 'nothing'} is no direction: {error}", "Name at least one objective.") from error


def label_of(vector: Vector, names: Sequence[str]) -> str:
    """A direction as people read it: `relevance 80, brevity 60`."""
    return ", ".join(f"{name} {number}" for name, number in zip(names, vector, strict=True) if number) or "0"


def parse_direction(text: str) -> dict[str, float]:
    """`relevance=0.8,brevity=0.6` -> components.

    Raises:
        AlignError: it is written otherwise.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name.strip() and equals and math.isfinite(value)):
            raise AlignError(
                f"a direction is written `relevance=0.8,brevity=0.6`, found {text!r}.",
                "Give each objective a finite number.",
            )
        found[name.strip()] = value
    return found


def draw_directions(directions: Directions, names: Sequence[str], count: int, *key: int | str) -> list[Vector]:
    """Random directions; a pure function of the key."""
    return [tuple(to_integers(row)) for row in _drawn(directions, tuple(names), count, *key)]


def _drawn(directions: Directions, names: tuple[str, ...], count: int, *key: int | str) -> Float[Tensor, "n c"]:
    source = generator(*key, "directions")
    if isinstance(directions, Arc):
        angles = torch.rand(count, generator=source, dtype=torch.float64)
        degrees = (directions.low + (directions.high - directions.low) * angles).tolist()
        return torch.stack([from_angle(angle) for angle in degrees])
    if isinstance(directions, Cap):
        main = from_names(directions.middle(names), names)
        signs = range(len(names)) if directions.non_negative else ()
        return random_directions(count, main, source, cap_degrees=directions.degrees, non_negative=tuple(signs))
    given = torch.stack([from_integers(vector_of(one, names)) for one in directions.directions])
    return given[torch.randint(len(given), (count,), generator=source)]


def degrees_outside(directions: Directions, names: Sequence[str], vector: Vector) -> float:
    """Degrees between a direction and the nearest one that training can have drawn; 0 inside. Beyond it the policy has
    never seen such a control.
    """
    asked = from_integers(vector)
    match directions:
        case Cap():
            main = from_names(directions.middle(tuple(names)), names)
            return max(0.0, angle_between(asked, main) - directions.degrees)
        case Arc():
            angle = math.degrees(math.atan2(float(asked[1]), float(asked[0])))
            nearest = min(max(angle, directions.low), directions.high)
            return abs(angle - nearest)
        case Listed():
            return min(angle_between(asked, from_integers(vector_of(one, names))) for one in directions.directions)
