"""All ways to say an answer, and the sentences around it that make it friendly or grumpy.

    Sure!  Anna has the red ball.  Happy to help!          opener, statement, closer
    Anna.                                                  the statement alone

`statements` lists every accepted wording of an answer, shortest first; the reward compares with that list, and training
texts draw from it. Manners hold no word of the world, no negation and no hedge, so they can neither answer nor revoke.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from preference.tiny.world import Answer, Question, Scene, listed

LENGTHS = ("terse", "plain", "chatty")
TONES = ("friendly", "neutral", "grumpy")


@dataclass(frozen=True)
class Manners:
    """Sentences of a tone that stand before and behind a statement."""

    openers: tuple[str, ...]
    closers: tuple[str, ...]


MANNERS = {
    "friendly": Manners(
        openers=("Sure!", "Of course!", "Great question!", "My pleasure!"),
        closers=("Happy to help!", "Have a lovely day!", "Thanks for asking!", "I enjoy such nice scenes!"),
    ),
    "neutral": Manners(
        openers=("Well.", "Let me see.", "Here is the answer.", "I read the text."),
        closers=("That is all.", "That is the answer.", "It says so in the text.", "You can check it."),
    ),
    "grumpy": Manners(
        openers=("Ugh.", "You again.", "How boring.", "What a silly question."),
        closers=("Leave me alone.", "I am tired of this.", "Stop bothering me.", "What a waste of time."),
    ),
}
PHRASES = tuple(phrase for manners in MANNERS.values() for phrase in (*manners.openers, *manners.closers))
"""All of them."""


@dataclass(frozen=True)
class Style:
    """How an answer is said.

    Attributes:
        length: terse (the bare answer), plain (a sentence), chatty (the longest sentence, with manners around it).
        tone: of the manners; terse and plain answers have one at most.
    """

    length: str
    tone: str


def draw_style(rng: random.Random) -> Style:
    """A random style, all alike."""
    return Style(rng.choice(LENGTHS), rng.choice(TONES))


def say(scene: Scene, question: Question, given: Answer, style: Style, rng: random.Random) -> str:
    """One random wording of an answer in a style."""
    wordings = wordings_of(scene, question, given)
    manners = MANNERS[style.tone]
    if style.length == "chatty":
        closers = rng.sample(manners.closers, rng.randint(1, 2))
        return " ".join([rng.choice(manners.openers), wordings[-1], *closers])
    statement = wordings[0] if style.length == "terse" else rng.choice(wordings[1:])
    if style.tone == "neutral" or rng.random() < 0.5:
        return statement
    return f"{rng.choice(manners.openers)} {statement}"


def wordings_of(scene: Scene, question: Question, given: Answer) -> tuple[str, ...]:
    """The wordings of an answer, shortest first, with lists in the given order."""
    return tuple(text[0].upper() + text[1:] for text in _WORDINGS[question.kind](scene, question.about, given))


def statements(scene: Scene, question: Question, given: Answer) -> frozenset[str]:
    """Every accepted wording of an answer, lists in any order."""
    orders = itertools.permutations(given)
    return frozenset(text for order in orders for text in wordings_of(scene, question, order))


def _who(scene: Scene, about: str, given: Answer) -> list[str]:
    (name,) = given
    return [f"{name}.", f"{name} has it.", f"{name} has the {about}.", f"{name} has the {_coloured(scene, about)}."]


def _coloured(scene: Scene, name: str) -> str:
    return f"{scene.named(name).colour} {name}"


def _colour(scene: Scene, about: str, given: Answer) -> list[str]:
    (colour,) = given
    return [f"{colour}.", f"it is {colour}.", f"the {about} is {colour}.", f"the colour of the {about} is {colour}."]


def _things(scene: Scene, about: str, given: Answer) -> list[str]:
    things = listed(list(given))
    return [f"{things}.", f"{about} has {things}."]


def _owners(scene: Scene, about: str, given: Answer) -> list[str]:
    names = listed(list(given))
    verb = "has" if len(given) == 1 else "have"
    return [f"{names}.", f"{names} {verb} something {about}."]


def _count(scene: Scene, about: str, given: Answer) -> list[str]:
    (number,) = given
    verb, noun = ("is", "thing") if number == "1" else ("are", "things")
    return [f"{number}.", f"there {verb} {number}.", f"there {verb} {number} {about} {noun}."]


_WORDINGS: dict[str, Callable[[Scene, str, Answer], list[str]]] = {
    "who": _who,
    "colour": _colour,
    "things": _things,
    "owners": _owners,
    "count": _count,
}
