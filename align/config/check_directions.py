"""Directions that cannot be: an arc of three objectives, an empty list, an unknown objective. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from align.config.directions import Arc, Cap, Components, Directions, Listed
from align.config.errors import Problem
from align.errors import did_you_mean


def check_directions(
    given: Directions, names: tuple[str, ...], key: str, shown: Mapping[str, Sequence[Components]]
) -> Iterator[Problem]:
    """Contradictions of a set of directions, and of directions that are listed elsewhere.

    Args:
        given: what training draws from.
        names: the objectives.
        key: where `given` stands in the settings.
        shown: place in the settings -> directions listed there.
    """
    listed = dict(shown)
    match given:
        case Arc():
            if len(names) > 2:
                yield Problem(
                    keys=(f"{key}.kind", "rewards"),
                    message=f"an arc is for two objectives, found {len(names)}: {', '.join(names)}.",
                    way_out="Use a cap: `{kind: cap}`.",
                )
            if given.low > given.high:
                yield Problem(
                    keys=(f"{key}.low", f"{key}.high"),
                    message=f"the arc goes from {given.low:g} to {given.high:g} degrees.",
                    way_out="Give the smaller angle as `low`.",
                )
        case Cap():
            if given.main:
                listed[f"{key}.main"] = (given.main,)
        case Listed():
            listed[f"{key}.directions"] = given.directions
            if not given.directions:
                yield Problem(
                    keys=(f"{key}.directions",),
                    message="the list of directions is empty.",
                    way_out="Give at least one, such as `[{relevance: 1.0}]`.",
                )
    for place, directions in listed.items():
        for direction in directions:
            yield from check_direction(place, direction, names)


def check_direction(key: str, direction: Components, names: tuple[str, ...]) -> Iterator[Problem]:
    """An unknown objective, or a vector of length 0."""
    unknown = [name for name in direction if name not in names]
    if unknown:
        yield Problem(
            keys=(key,),
            message=f"the direction names `{unknown[0]}`, which is no objective.{did_you_mean(unknown[0], names)}",
            way_out=f"The objectives are {', '.join(names) or 'none'}.",
        )
    values = direction.values()
    if not any(values) or not all(math.isfinite(value) for value in values):
        yield Problem(
            keys=(key,),
            message=f"a direction needs a finite component other than 0, found {dict(direction)}.",
            way_out="Say what to prefer, such as `{relevance: 0.8, brevity: 0.6}`.",
        )


def asks_for_less(given: Directions) -> bool:
    """Whether a component of a drawn direction can be negative."""
    match given:
        case Arc():
            return given.low < 0 or given.high > 90
        case Cap():
            return not given.non_negative
        case Listed():
            return any(value < 0 for one in given.directions for value in one.values())
