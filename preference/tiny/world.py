"""The world of the embedded language model: a note about who has what where and when, and a question about it.

    On Monday Anna has 3 red balls in the garden. What colour are the balls?        -> red

`prompt` and `parse` are inverse to each other, `answer` is the one true answer, `draw` makes random notes, and
`held_out` splits the notes into two disjoint parts by a hash, so the split needs no file and never moves.

The six classes of questions, with the names used in every report:

    who      "Who has the balls?"              a name
    colour   "What colour are the balls?"      a colour
    count    "How many balls are there?"       a number
    place    "Where are the balls?"            a place
    day      "On which day is that?"           a day
    what     "What does Anna have?"            number, colour and things
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

NAMES = ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kira", "Leo")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "pink", "brown")
THINGS = (
    *("balls", "cups", "hats", "kites", "books", "lamps", "drums", "coats"),
    *("rings", "boats", "cakes", "pens", "bags", "keys", "shoes", "bikes"),
)
PLACES = ("garden", "kitchen", "school", "park", "office", "attic", "shop", "museum")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = tuple(str(number) for number in range(2, 10))
HELD_OUT_SHARE = 0.2

QUESTIONS = {
    "who": "Who has the {things}?",
    "colour": "What colour are the {things}?",
    "count": "How many {things} are there?",
    "place": "Where are the {things}?",
    "day": "On which day is that?",
    "what": "What does {name} have?",
}
CLASSES = tuple(QUESTIONS)


@dataclass(frozen=True)
class Note:
    """What a prompt tells."""

    day: str
    name: str
    number: str
    colour: str
    things: str
    place: str

    def text(self) -> str:
        """The note in words."""
        return f"On {self.day} {self.name} has {self.number} {self.colour} {self.things} in the {self.place}."


FIELDS = {"day": DAYS, "name": NAMES, "number": NUMBERS, "colour": COLOURS, "things": THINGS, "place": PLACES}
"""All values of each part of a note."""
ASKED = {"who": "name", "colour": "colour", "count": "number", "place": "place", "day": "day", "what": "number"}
"""The part of a note that a class of questions is about; for `what`, the part in which a slip is made."""


def question_text(note: Note, kind: str) -> str:
    """The question of a class about a note."""
    return QUESTIONS[kind].format(things=note.things, name=note.name)


def answer(note: Note, kind: str) -> str:
    """The true answer."""
    return f"{note.number} {note.colour} {note.things}" if kind == "what" else getattr(note, ASKED[kind])


# --- texts ------------------------------------------------------------------------------------------------------------


def prompt(note: Note, kind: str) -> str:
    """The text of a user's turn; the inverse of `parse`."""
    return f"{note.text()} {question_text(note, kind)}"


_NOTE = re.compile(r"On (\w+) (\w+) has (\d) (\w+) (\w+) in the (\w+)\. (.+)")
EXAMPLE = "On Monday Anna has 3 red balls in the garden. Who has the balls?"


def parse(text: str) -> tuple[Note, str]:
    """Note and class of question of a prompt.

    Raises:
        ValueError: it is no prompt of this world.
    """
    found = _NOTE.fullmatch(" ".join(text.split()))
    if found is not None:
        *parts, asked = found.groups()
        note = Note(*parts)
        known = all(getattr(note, name) in values for name, values in FIELDS.items())
        kinds = [kind for kind in CLASSES if question_text(note, kind) == asked]
        if known and kinds:
            return note, kinds[0]
    raise ValueError(f"expected a note and a question about it, such as {EXAMPLE!r}, found {text!r}")


# --- random notes, and the split --------------------------------------------------------------------------------------


def draw(rng: random.Random) -> Note:
    """A random note."""
    return Note(*(rng.choice(values) for values in FIELDS.values()))


def held_out(note: Note) -> bool:
    """Whether a note is kept aside for evaluation. A pure function of its text (SHA-256), the same everywhere."""
    digest = hashlib.sha256(note.text().encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def draw_note(rng: random.Random, *, heldout: bool) -> Note:
    """A random note of one side of the split."""
    while True:
        note = draw(rng)
        if held_out(note) is heldout:
            return note
