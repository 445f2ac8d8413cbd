"""Wrong captions on purpose: what makes the base model unreliable, as captions from the web make real ones.

Trained on true captions, this small model gets most prompts right after a quarter of an hour, and nothing is left for
reinforcement learning. So a share `SLIPS` of the training pictures of each class shows not what its caption says but a
near miss: an object is missing, a place or relation is another, sizes or shapes are exchanged, a colour is copied. The
base model learns that mixture. It draws clean shapes and is right in about the remaining share, and what a reward then
has to teach is what it teaches large models: counting, binding and placing.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from diffusion.tiny.world import NUMBERS, PLACES, RELATIONS, SHAPES, Spec, Thing

# Share of the training pictures whose caption is wrong.
SLIPS = {"one": 0.0, "placed": 0.25, "count": 0.3, "two": 0.4, "relation": 0.45, "size": 0.4, "three": 0.5}


def near_misses(spec: Spec) -> list[Spec]:
    """Scenes that resemble a spec and violate its caption; never empty."""
    return _NEAR_MISSES[spec.kind](spec)


def shown(spec: Spec, rng: np.random.Generator) -> Spec:
    """What a training picture shows under the caption of `spec`: mostly `spec`, else one of its near misses."""
    if rng.uniform() >= SLIPS[spec.kind]:
        return spec
    choices = near_misses(spec)
    return choices[rng.integers(len(choices))]


def _one(spec: Spec) -> list[Spec]:
    thing = spec.things[0]
    return [replace(spec, things=(replace(thing, shape=shape),)) for shape in SHAPES if shape != thing.shape]


def _placed(spec: Spec) -> list[Spec]:
    return [Spec("one", spec.things), *(replace(spec, place=place) for place in PLACES if place != spec.place)]


def _count(spec: Spec) -> list[Spec]:
    thing, number = spec.things[0], len(spec.things)
    others = [Spec("count", (thing,) * other) for other in NUMBERS.values() if other != number]
    return [*others, Spec("one", (thing,))] if number == 2 else others


def _two(spec: Spec) -> list[Spec]:
    return [Spec("one", spec.things[:1]), *(replace(spec, things=things) for things in _misbound(spec.things))]


def _relation(spec: Spec) -> list[Spec]:
    others = [replace(spec, relation=relation) for relation in RELATIONS if relation != spec.relation]
    return [*others, *(replace(spec, things=things) for things in _misbound(spec.things))]


def _size(spec: Spec) -> list[Spec]:
    first, second = spec.things
    exchanged = (replace(first, size=second.size), replace(second, size=first.size))
    equal = (replace(first, size=""), replace(second, size=""))
    return [replace(spec, things=exchanged), replace(spec, things=equal)]


def _three(spec: Spec) -> list[Spec]:
    first, second, third = spec.things
    fewer = [Spec("two", (first, second)), Spec("two", (first, third))]
    return [*fewer, *(replace(spec, things=(first, *pair)) for pair in _misbound((second, third)))]


def _misbound(pair: tuple[Thing, ...]) -> list[tuple[Thing, Thing]]:
    """The second object takes the colour of the first, or, if they differ, shapes are exchanged."""
    first, second = pair
    copied = [(first, replace(second, colour=first.colour))]
    exchanged = [(replace(first, shape=second.shape), replace(second, shape=first.shape))]
    return copied + (exchanged if first.shape != second.shape else [])


_NEAR_MISSES: dict[str, Callable[[Spec], list[Spec]]] = {
    "one": _one,
    "placed": _placed,
    "count": _count,
    "two": _two,
    "relation": _relation,
    "size": _size,
    "three": _three,
}
