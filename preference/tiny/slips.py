"""Wrong answers on purpose: what makes the base model unreliable, as texts from the web make real ones.

Trained on true answers, the model would have nothing left to repair. So a share `SLIPS` of its training answers gives
not the truth but one fixed near miss, the look at the wrong line. The model learns that mixture: fluent, and right in
about the remaining share.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from preference.tiny.world import Answer, Question, Scene, answer

SLIPS = {"who": 0.5, "colour": 0.5, "things": 0.5, "owners": 0.5, "count": 0.5}
"""Share of the training answers that are wrong."""


def near_miss(scene: Scene, question: Question) -> Answer:
    """The wrong answer to a question: the next person's, the next other colour, one owner less or more, one less."""
    return _NEAR_MISSES[question.kind](scene, question.about)


def told(scene: Scene, question: Question, rng: random.Random, *, slips: bool) -> Answer:
    """What a training text answers: the truth, or with `slips` sometimes the near miss."""
    wrong = slips and rng.random() < SLIPS[question.kind]
    return near_miss(scene, question) if wrong else answer(scene, question)


def _next(items: tuple[str, ...], item: str) -> str:
    return items[(items.index(item) + 1) % len(items)]


def _who(scene: Scene, about: str) -> Answer:
    return (_next(scene.people(), scene.named(about).owner),)


def _colour(scene: Scene, about: str) -> Answer:
    """The colour of the first thing after it that has another one; a colour that is not there, if all are alike."""
    place = scene.things.index(scene.named(about))
    true = scene.things[place].colour
    others = [thing.colour for thing in (*scene.things[place:], *scene.things[:place]) if thing.colour != true]
    return (others[0] if others else "blue" if true == "red" else "red",)


def _things(scene: Scene, about: str) -> Answer:
    return tuple(thing.words() for thing in scene.of(_next(scene.people(), about)))


def _owners(scene: Scene, about: str) -> Answer:
    """The first of several; of a single owner, this one and the next person."""
    true = answer(scene, Question("owners", about))
    if len(true) > 1:
        return true[:1]
    both = (true[0], _next(scene.people(), true[0]))
    return tuple(person for person in scene.people() if person in both)


def _count(scene: Scene, about: str) -> Answer:
    true = len(scene.coloured(about))
    return (str(true - 1 if true > 1 else true + 1),)


_NEAR_MISSES: dict[str, Callable[[Scene, str], Answer]] = {
    "who": _who,
    "colour": _colour,
    "things": _things,
    "owners": _owners,
    "count": _count,
}
