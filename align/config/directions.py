"""Settings of directions: which ones are drawn, and which ones are shown. Torch-free; both branches use them.

The mathematics is `align/shaping/directions.py`; the draw is `align/control.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from align.config.numbers import PositiveFloat

Components = Mapping[str, float]
"""Objective -> component of a direction, in any length; 0 where an objective is not named."""


@dataclass(frozen=True, kw_only=True)
class Arc:
    """Directions of two objectives, uniform in their angle: 0 degrees is the first objective alone, 90 the second."""

    kind: Literal["arc"] = "arc"
    """Selects this set of directions."""
    low: float = 0.0
    """Smallest angle in degrees; the published cone of helpfulness and verbosity is about -45 to 0."""
    high: float = 90.0
    """Largest angle in degrees."""

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """Angles at equal distances, both ends among them."""
        width = (self.high - self.low) / max(count - 1, 1)
        angles = [math.radians(self.low + place * width) for place in range(count)]
        return tuple({names[0]: round(math.cos(angle), 12), names[1]: round(math.sin(angle), 12)} for angle in angles)


@dataclass(frozen=True, kw_only=True)
class Cap:
    """Directions around a main one, uniform on the part of the sphere that is near enough."""

    kind: Literal["cap"] = "cap"
    """Selects this set of directions."""
    main: Components = field(default_factory=dict)
    """Middle of the cap; empty = all objectives alike."""
    degrees: PositiveFloat = 55.0
    """Largest angle to the middle. Of three objectives alike, each alone is 54.7 degrees away."""
    non_negative: bool = True
    """No component below 0: nobody asks for less of an objective."""

    def middle(self, names: tuple[str, ...]) -> Components:
        """The main direction."""
        return self.main or dict.fromkeys(names, 1.0)

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """The middle, each objective alone, and every two of them together, as far as asked for."""
        pairs = [{a: 1.0, b: 1.0} for i, a in enumerate(names) for b in names[i + 1 :]]
        alone: list[Components] = [{name: 1.0} for name in names]
        return tuple([self.middle(names), *alone, *pairs][:count])


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A few given directions, each as likely as the others; one alone trains a policy for that direction."""

    kind: Literal["list"] = "list"
    """Selects this set of directions."""
    directions: tuple[Components, ...] = ()
    """The directions."""

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """The directions themselves."""
        return self.directions


Directions: TypeAlias = Annotated[Arc | Cap | Listed, Field(discriminator="kind")]


def described(given: Directions, names: tuple[str, ...]) -> str:
    """A set of directions in a few words, for plans."""
    match given:
        case Arc():
            return f"{given.low:g} to {given.high:g} degrees from {names[0]}"
        case Cap():
            main = ", ".join(f"{name} {value:g}" for name, value in given.middle(names).items())
            return f"within {given.degrees:g} degrees of {main}"
        case Listed():
            return f"{len(given.directions)} given ones"


def middle_of(directions: tuple[Components, ...], names: tuple[str, ...]) -> dict[str, float]:
    """Sum of the directions, each in length 1: the direction between them."""
    lengths = [math.hypot(*one.values()) or 1.0 for one in directions]
    return {
        name: sum(one.get(name, 0.0) / length for one, length in zip(directions, lengths, strict=True))
        for name in names
    }


def shown_in_words(directions: tuple[Components, ...]) -> list[str]:
    """Directions that are shown, one text each, for plans."""
    return [", ".join(f"{name} {value:.2g}" for name, value in one.items()) for one in directions]
