"""All ways to say an answer, and the sentences around it that make it friendly or grumpy.

    Sure!  Anna has the balls.  Happy to help!              opener, statement, closer
    Anna.                                                  the statement alone

`statements` lists every accepted wording of an answer, shortest first; the reward compares with that list, and training
texts draw from it. Manners hold no word of the world, no negation and no hedge, so they can neither answer nor revoke.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from preference.tiny.world import Note

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
        closers=("Happy to help!", "Have a lovely day!", "Thanks for asking!", "I enjoy such nice notes!"),
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


def say(note: Note, kind: str, given: str, style: Style, rng: random.Random) -> str:
    """One random wording of an answer in a style."""
    wordings = statements(note, kind, given)
    manners = MANNERS[style.tone]
    if style.length == "chatty":
        closers = rng.sample(manners.closers, rng.randint(1, 2))
        return " ".join([rng.choice(manners.openers), wordings[-1], *closers])
    statement = wordings[0] if style.length == "terse" else rng.choice(wordings[1:])
    if style.tone == "neutral" or rng.random() < 0.5:
        return statement
    return f"{rng.choice(manners.openers)} {statement}"


def statements(note: Note, kind: str, given: str) -> tuple[str, ...]:
    """Every accepted wording of an answer, shortest first."""
    texts = (template.format(given=given, things=note.things, name=note.name) for template in _WORDINGS[kind])
    return tuple(text[0].upper() + text[1:] for text in texts)


_WORDINGS = {
    "who": ("{given}.", "{given} has them.", "{given} has the {things}."),
    "colour": ("{given}.", "they are {given}.", "the {things} are {given}."),
    "count": ("{given}.", "there are {given}.", "there are {given} {things}."),
    "place": ("in the {given}.", "they are in the {given}.", "the {things} are in the {given}."),
    "day": ("on {given}.", "it is on {given}.", "that is on {given}."),
    "what": ("{given}.", "{name} has {given}."),
}
