"""The drawn world: a caption such as "a red circle left of a blue square", its meaning, and its picture.

A `Spec` is the meaning of a caption: which objects, and at most one more demand (a place, a relation, two sizes).
`parse` and `caption` are inverse to each other, `render` draws a spec, `captions` lists every caption of a class, and
`held_out` splits the captions into two disjoint parts by a hash, so the split needs no file and never moves.

The entropy is low on purpose, so that two million parameters can learn it on two cores: each class has one or two
layouts, centres jitter by 3 pixels, radii by 1. Objects never touch and lie fully inside.

The seven classes, with the names used in every report:

    one       "a red circle"                            15 captions
    placed    "a red circle on the left"                60
    count     "two red circles"                         30
    two       "a red circle and a blue square"         180
    relation  "a red circle left of a blue square"     720
    size      "a small red circle and a large blue square"   360
    three     "a red circle, a blue square and a green triangle"   1620

Colours within one caption differ, except in class `count`. Coordinates: x to the right, y down, in pixels.
"""

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
BACKGROUND = (244, 244, 244)
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (40, 90, 220),
    "yellow": (240, 190, 30),
    "purple": (160, 50, 180),
}
SHAPES = ("circle", "square", "triangle")
NUMBERS = {"two": 2, "three": 3}
PLACES = {"left": (16, 32), "right": (48, 32), "top": (32, 16), "bottom": (32, 48)}
RELATIONS = ("left of", "right of", "above", "below")
CLASSES = ("one", "placed", "count", "two", "relation", "size", "three")
RADIUS = {"": 9.0, "small": 6.0, "large": 12.0}

RADIUS_JITTER = 1.0
CENTRE_JITTER = 3.0
GAP = 1.5  # pixels between the bounding discs of two objects, and between a disc and the frame
OVERSAMPLE = 4
# Classes of few captions keep a larger share aside, so that every class can be evaluated on held-out captions.
HELD_OUT_SHARE = {"one": 0.33, "placed": 0.3, "count": 0.33, "two": 0.2, "relation": 0.2, "size": 0.2, "three": 0.2}

# Half extents in units of the radius. All three shapes lie inside a disc of 1.25 radii.
SQUARE_HALF_SIDE = 0.9
TRIANGLE_CIRCUMRADIUS = 1.25
BOUNDING_DISC = 1.28

_ROW = ((18, 32), (46, 32))
_COLUMN = ((32, 18), (32, 46))
_CORNERS = ((18, 18), (46, 18), (32, 46))
_RELATION_LAYOUT = {"left of": _ROW, "right of": _ROW[::-1], "above": _COLUMN, "below": _COLUMN[::-1]}


@dataclass(frozen=True)
class Thing:
    """One wanted object. `size` is "", "small" or "large"."""

    colour: str
    shape: str
    size: str = ""


@dataclass(frozen=True)
class Spec:
    """The meaning of a caption.

    Attributes:
        kind: one of `CLASSES`.
        things: the objects in reading order; a count repeats its object.
        place: for class `placed`, a key of `PLACES`.
        relation: for class `relation`, one of `RELATIONS`, read "first <relation> second".
    """

    kind: str
    things: tuple[Thing, ...]
    place: str = ""
    relation: str = ""


@dataclass(frozen=True)
class Drawn:
    """One object as it is painted: a thing, its centre in pixels and its radius in pixels."""

    thing: Thing
    x: float
    y: float
    radius: float


# --- captions ---------------------------------------------------------------------------------------------------------


def _noun(thing: Thing) -> str:
    return f"a {thing.size + ' ' if thing.size else ''}{thing.colour} {thing.shape}"


def caption(spec: Spec) -> str:
    """The one caption of a spec; the inverse of `parse`."""
    nouns = [_noun(thing) for thing in spec.things]
    writers = {
        "one": lambda: nouns[0],
        "placed": lambda: f"{nouns[0]} {_place_words(spec.place)}",
        "count": lambda: f"{_number_word(len(nouns))} {spec.things[0].colour} {spec.things[0].shape}s",
        "two": lambda: f"{nouns[0]} and {nouns[1]}",
        "relation": lambda: f"{nouns[0]} {spec.relation} {nouns[1]}",
        "size": lambda: f"{nouns[0]} and {nouns[1]}",
        "three": lambda: f"{nouns[0]}, {nouns[1]} and {nouns[2]}",
    }
    return writers[spec.kind]()


def _place_words(place: str) -> str:
    return f"at the {place}" if place in ("top", "bottom") else f"on the {place}"


def _number_word(number: int) -> str:
    return next(word for word, value in NUMBERS.items() if value == number)


def words() -> tuple[str, ...]:
    """Every word of the world, commas included, in a fixed order: the vocabulary of the tokenizer."""
    plain = ["a", "and", ",", "on", "at", "the", "of", "above", "below", "left", "right", "top", "bottom"]
    return (*plain, "small", "large", *NUMBERS, *COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES))


@lru_cache(maxsize=1)
def _meanings() -> dict[str, Spec]:
    return {caption(spec): spec for kind in CLASSES for spec in specs(kind)}


def parse(text: str) -> Spec:
    """The meaning of a caption.

    Spaces and capitals do not matter.

    Raises:
        ValueError: the text is not a caption of this world; the message names the words that do not belong to it, or
            shows one caption of each class when every word is known.
    """
    tidy = " ".join(text.lower().replace(",", " , ").split()).replace(" ,", ",")
    found = _meanings().get(tidy)
    if found is not None:
        return found
    known = set(words())
    strange = [word for word in tidy.replace(",", " ").split() if word not in known]
    examples = "; ".join(repr(captions(kind)[0]) for kind in CLASSES)
    why = f"unknown words: {', '.join(map(repr, strange))}" if strange else "known words in an unknown order"
    raise ValueError(f"expected a caption of the drawn world, found {text!r} ({why}). Captions look like: {examples}")


# --- all captions, and the split --------------------------------------------------------------------------------------


def _objects() -> list[Thing]:
    return [Thing(colour, shape) for colour in COLOURS for shape in SHAPES]


def _tuples(size: int) -> list[tuple[Thing, ...]]:
    every = itertools.product(_objects(), repeat=size)
    return [things for things in every if len({thing.colour for thing in things}) == size]


def _sized(pair: tuple[Thing, ...], sizes: tuple[str, str]) -> tuple[Thing, ...]:
    return tuple(Thing(thing.colour, thing.shape, size) for thing, size in zip(pair, sizes, strict=True))


@lru_cache(maxsize=len(CLASSES))
def specs(kind: str) -> tuple[Spec, ...]:
    """Every spec of a class, in a fixed order."""
    lists = {
        "one": lambda: [Spec("one", (thing,)) for thing in _objects()],
        "placed": lambda: [Spec("placed", (thing,), place=place) for thing in _objects() for place in PLACES],
        "count": lambda: [Spec("count", (thing,) * n) for thing in _objects() for n in NUMBERS.values()],
        "two": lambda: [Spec("two", pair) for pair in _tuples(2)],
        "relation": lambda: [Spec("relation", pair, relation=r) for pair in _tuples(2) for r in RELATIONS],
        "size": lambda: [
            Spec("size", _sized(pair, sizes))
            for pair in _tuples(2)
            for sizes in (("small", "large"), ("large", "small"))
        ],
        "three": lambda: [Spec("three", triple) for triple in _tuples(3)],
    }
    if kind not in lists:
        raise ValueError(f"expected a class of captions among {', '.join(CLASSES)}, found {kind!r}")
    return tuple(lists[kind]())


def captions(kind: str) -> tuple[str, ...]:
    """Every caption of a class, in a fixed order."""
    return tuple(caption(spec) for spec in specs(kind))


def held_out(text: str) -> bool:
    """Whether a caption is kept aside for evaluation. A pure function of the text (SHA-256), the same everywhere."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE[parse(text).kind] * 2**32


# --- pictures ---------------------------------------------------------------------------------------------------------


def layouts(spec: Spec) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The canonical layouts of a spec: each gives the centre of every thing, before jitter."""
    return {
        "one": lambda: (((32, 32),),),
        "placed": lambda: ((PLACES[spec.place],),),
        "count": lambda: (_CORNERS,) if len(spec.things) == 3 else (_ROW,),
        "two": lambda: (_ROW, _COLUMN),
        "relation": lambda: (_RELATION_LAYOUT[spec.relation],),
        "size": lambda: (_ROW,),
        "three": lambda: (_CORNERS,),
    }[spec.kind]()


def arrange(spec: Spec, rng: np.random.Generator) -> tuple[Drawn, ...]:
    """Draw a layout, jitter centres and radii, and repeat until nothing touches and everything lies inside."""
    choices = layouts(spec)
    layout = choices[rng.integers(len(choices))]
    while True:
        drawn = tuple(_jittered(thing, centre, rng) for thing, centre in zip(spec.things, layout, strict=True))
        if all(map(_inside, drawn)) and not any(_touch(a, b) for a, b in itertools.combinations(drawn, 2)):
            return drawn


def _jittered(thing: Thing, centre: tuple[int, int], rng: np.random.Generator) -> Drawn:
    dx, dy = rng.uniform(-CENTRE_JITTER, CENTRE_JITTER, size=2)
    radius = RADIUS[thing.size] + rng.uniform(-RADIUS_JITTER, RADIUS_JITTER)
    return Drawn(thing, centre[0] + dx, centre[1] + dy, radius)


def _inside(drawn: Drawn) -> bool:
    reach = BOUNDING_DISC * drawn.radius + GAP
    return reach <= min(drawn.x, drawn.y) and max(drawn.x, drawn.y) <= SIDE - reach


def _touch(a: Drawn, b: Drawn) -> bool:
    return float(np.hypot(a.x - b.x, a.y - b.y)) < BOUNDING_DISC * (a.radius + b.radius) + GAP


def outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Corners of a square or an upright triangle, in the unit of the arguments; empty for a circle."""
    if shape == "square":
        half = SQUARE_HALF_SIDE * radius
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if shape == "triangle":
        angles = np.deg2rad([-90.0, 30.0, 150.0])
        reach = TRIANGLE_CIRCUMRADIUS * radius
        return [(x + reach * float(np.cos(a)), y + reach * float(np.sin(a))) for a in angles]
    return []


def paint(drawn: tuple[Drawn, ...]) -> Image.Image:
    """Paint objects on the plain background, antialiased: drawn four times larger, then averaged."""
    big = Image.new("RGB", (SIDE * OVERSAMPLE, SIDE * OVERSAMPLE), BACKGROUND)
    pen = ImageDraw.Draw(big)
    for item in drawn:
        x, y, radius = (OVERSAMPLE * value for value in (item.x, item.y, item.radius))
        colour = COLOURS[item.thing.colour]
        corners = outline(item.thing.shape, x, y, radius)
        if corners:
            pen.polygon(corners, fill=colour)
        else:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return big.resize((SIDE, SIDE), Image.Resampling.BOX)


def render(spec: Spec, rng: np.random.Generator) -> Image.Image:
    """One random picture of a spec, 64 x 64 RGB."""
    return paint(arrange(spec, rng))
