"""The world of the embedded language model: people who have coloured things, and questions about them.

    Anna has a red ball and a blue cup. Ben has a red hat. Who has something red?        -> Anna and Ben

`prompt` and `parse` are inverse to each other, `answer` is the one true answer, `draw` makes random scenes, and
`held_out` splits the scenes into two disjoint parts by a hash, so the split needs no file and never moves.

The five classes of questions, with the names used in every report:

    who      "Who has the cup?"                   a name
    colour   "What colour is the cup?"            a colour
    things   "What does Anna have?"               one or two things with their colours
    owners   "Who has something red?"             one or more names
    count    "How many things are red?"           a number

In a scene no person and no thing comes twice, so every question has one answer; colours may.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

NAMES = ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kira", "Leo")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "pink", "brown")
THINGS = (
    *("ball", "cup", "hat", "kite", "book", "lamp", "drum", "coat"),
    *("ring", "boat", "cake", "pen", "bag", "key", "shoe", "bike"),
)
CLASSES = ("who", "colour", "things", "owners", "count")
SMALLEST, LARGEST = 2, 4
"""People in a scene."""
SECOND_THING = 0.35
"""Share of the people who have two things."""
HELD_OUT_SHARE = 0.2

QUESTIONS = {
    "who": "Who has the {}?",
    "colour": "What colour is the {}?",
    "things": "What does {} have?",
    "owners": "Who has something {}?",
    "count": "How many things are {}?",
}


@dataclass(frozen=True)
class Thing:
    """A coloured thing and who has it."""

    owner: str
    colour: str
    name: str

    def words(self) -> str:
        """As it is named in a text."""
        return f"a {self.colour} {self.name}"


@dataclass(frozen=True)
class Scene:
    """All things, in reading order; those of one person stand together."""

    things: tuple[Thing, ...]

    def people(self) -> tuple[str, ...]:
        """Names in reading order."""
        return tuple(dict.fromkeys(thing.owner for thing in self.things))

    def of(self, owner: str) -> tuple[Thing, ...]:
        """The things of a person."""
        return tuple(thing for thing in self.things if thing.owner == owner)

    def coloured(self, colour: str) -> tuple[Thing, ...]:
        """The things of a colour."""
        return tuple(thing for thing in self.things if thing.colour == colour)

    def named(self, name: str) -> Thing:
        """The one thing of a name."""
        return next(thing for thing in self.things if thing.name == name)

    def text(self) -> str:
        """The scene in words."""
        return " ".join(f"{owner} has {listed([t.words() for t in self.of(owner)])}." for owner in self.people())


@dataclass(frozen=True)
class Question:
    """A class and what is asked about: a thing, a name or a colour."""

    kind: str
    about: str

    def text(self) -> str:
        """The question in words."""
        return QUESTIONS[self.kind].format(self.about)


Answer = tuple[str, ...]
"""What is asked for, in reading order: a name, a colour, a number; names; or things such as "a red ball"."""


def listed(parts: list[str]) -> str:
    """`["x", "y", "z"]` as "x, y and z"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def answer(scene: Scene, question: Question) -> Answer:
    """The true answer."""
    return _ANSWERS[question.kind](scene, question.about)


def _owners(scene: Scene, colour: str) -> Answer:
    return tuple(dict.fromkeys(thing.owner for thing in scene.coloured(colour)))


_ANSWERS: dict[str, Callable[[Scene, str], Answer]] = {
    "who": lambda scene, about: (scene.named(about).owner,),
    "colour": lambda scene, about: (scene.named(about).colour,),
    "things": lambda scene, about: tuple(thing.words() for thing in scene.of(about)),
    "owners": _owners,
    "count": lambda scene, about: (str(len(scene.coloured(about))),),
}


# --- texts ------------------------------------------------------------------------------------------------------------


def prompt(scene: Scene, question: Question) -> str:
    """The text of a user's turn; the inverse of `parse`."""
    return f"{scene.text()} {question.text()}"


_SENTENCE = re.compile(r"(\w+) has (a \w+ \w+)(?: and (a \w+ \w+))?")
_ASKED = {kind: re.compile(re.escape(text).replace(r"\{\}", r"(\w+)")) for kind, text in QUESTIONS.items()}


def parse(text: str) -> tuple[Scene, Question]:
    """Scene and question of a prompt.

    Raises:
        ValueError: it is no prompt of this world.
    """
    *sentences, last = re.split(r"(?<=\.)\s+", text.strip())
    things = [thing for sentence in sentences for thing in _things(sentence)]
    scene = Scene(tuple(things))
    for kind, pattern in _ASKED.items():
        found = pattern.fullmatch(last)
        if found:
            question = Question(kind, found.group(1))
            if question.about in askable(scene, kind) and prompt(scene, question) == " ".join(text.split()):
                return scene, question
    raise ValueError(f"expected a scene and a question about it, such as {EXAMPLE!r}, found {text!r}")


EXAMPLE = "Anna has a red ball. Ben has a blue cup. Who has the cup?"


def _things(sentence: str) -> list[Thing]:
    found = _SENTENCE.fullmatch(sentence.removesuffix("."))
    if found is None:
        return []
    owner, *parts = found.groups()
    return [Thing(owner, *part.split()[1:]) for part in parts if part]


def askable(scene: Scene, kind: str) -> tuple[str, ...]:
    """What questions of a class can be about: things, people or colours of the scene, in reading order."""
    attribute = {"who": "name", "colour": "name", "things": "owner", "owners": "colour", "count": "colour"}[kind]
    return tuple(dict.fromkeys(getattr(thing, attribute) for thing in scene.things))


# --- random scenes, and the split -------------------------------------------------------------------------------------


def draw(rng: random.Random) -> Scene:
    """A random scene. Half of the colours repeat one that was there before, so that lists and counts are not all 1."""
    people = rng.sample(NAMES, rng.randint(SMALLEST, LARGEST))
    owners = [owner for owner in people for _ in range(1 + (rng.random() < SECOND_THING))]
    colours: list[str] = []
    for _ in owners:
        colours.append(rng.choice(colours) if colours and rng.random() < 0.4 else rng.choice(COLOURS))
    names = rng.sample(THINGS, len(owners))
    return Scene(tuple(Thing(*parts) for parts in zip(owners, colours, names, strict=True)))


def draw_question(scene: Scene, rng: random.Random, kind: str | None = None) -> Question:
    """A random question about a scene, of a class or of any."""
    kind = rng.choice(CLASSES) if kind is None else kind
    return Question(kind, rng.choice(askable(scene, kind)))


def held_out(scene: Scene) -> bool:
    """Whether a scene is kept aside for evaluation. A pure function of its text (SHA-256), the same everywhere."""
    digest = hashlib.sha256(scene.text().encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def draw_scene(rng: random.Random, *, heldout: bool) -> Scene:
    """A random scene of one side of the split."""
    while True:
        scene = draw(rng)
        if held_out(scene) is heldout:
            return scene
