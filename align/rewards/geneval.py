"""GenEval's rules: from the objects that a detector found to what the picture got right. No network in here.

A server brings the detector (and a colour classifier) and calls `judged`; see docs/http_scorer.md. Boxes are
(left, top, right, bottom) in pixels, y grows downwards.

References:
    Ghosh et al., "GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment", arXiv:2310.11513.
    Liu et al., "Flow-GRPO: Training Flow Matching Models via Online RL", arXiv:2505.05470 (the dense score).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Box = Sequence[float | int]
"""left, top, right, bottom"""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
CONFIDENCE, COUNTING_CONFIDENCE, MOST = 0.3, 0.9, 16
SHRINK, SLANT = 0.1, 0.5


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One object of a class.

    Attributes:
        box: where it is.
        colour: one of `COLOURS`, None where nobody asked.
    """

    box: Box
    colour: str | None = None


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One demand of a prompt.

    Attributes:
        name: class of the object.
        count: how many.
        colour: which each of them has, None for any.
        position: (relation, number of an earlier clause): each of these is `left of`, `right of`, `above` or `below`
            each of those; None for anywhere.
    """

    name: str
    count: int = 1
    colour: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a picture got right.

    Attributes:
        dense: mean of the terms of all clauses; at most 1, and negative where far too many objects are there. To train
            on.
        dense_official: the same with a quirk of the released training code: a wrong position adds 0 and then 1, so that
            it still earns half.
        strict_correct: exact counts and all checks.
        correct: the benchmark's rule: at least so many. To report.
    """

    dense: float
    dense_official: float
    strict_correct: bool
    correct: bool


def clauses(rows: Sequence[Mapping[str, Any]]) -> list[Clause]:
    """Clauses from the benchmark's metadata: `{"class": "dog", "count": 2, "color": "red", "position": ["above", 0]}`.

    Raises:
        ValueError: an unknown key, or a position that refers to no earlier clause.
    """
    read = []
    for number, row in enumerate(rows):
        unknown = set(row) - {"class", "count", "color", "position"}
        if unknown or "class" not in row:
            raise ValueError(f"expected `class`, `count`, `color`, `position`, found {', '.join(map(str, row))}.")
        position = row.get("position")
        if position is not None and not (len(position) == 2 and 0 <= int(position[1]) < number):
            raise ValueError(f"expected a position [relation, number of an earlier clause], found {position!r}.")
        read.append(
            Clause(
                name=row["class"],
                count=int(row.get("count", 1)),
                colour=row.get("color"),
                position=None if position is None else (str(position[0]), int(position[1])),
            )
        )
    return read


def kept(confidences: Sequence[float], counting: bool = False) -> list[int]:
    """Which boxes of a class count, best first: the best 16 with a confidence above 0.3.

    For prompts of the tag `counting` it is 0.9. Boxes that overlap are all kept.
    """
    least = COUNTING_CONFIDENCE if counting else CONFIDENCE
    sure = [place for place, confidence in enumerate(confidences) if confidence > least]
    return sorted(sure, key=lambda place: -confidences[place])[:MOST]


def relations(a: Box, b: Box) -> frozenset[str]:
    """Where a is, seen from b: of `left of`, `right of`, `above`, `below` none, one or two.

    With the offset o of the centres, and s = o moved towards 0 by 0.1 (size of a + size of b) in each direction:
    none if both |s| < 1e-3; otherwise s / |o| tells, beyond 0.5 on either side.
    """
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    reach = [SHRINK * (abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i])) for i in (0, 1)]
    shrunk = [max(abs(o) - r, 0.0) * (1 if o > 0 else -1) for o, r in zip(offset, reach, strict=True)]
    if max(map(abs, shrunk)) < 1e-3:
        return frozenset()
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    dx, dy = (s / length for s in shrunk)
    names = {"left of": dx < -SLANT, "right of": dx > SLANT, "above": dy < -SLANT, "below": dy > SLANT}
    return frozenset(name for name, holds in names.items() if holds)


def judged(
    found: Mapping[str, Sequence[Detection]], include: Sequence[Clause], exclude: Sequence[Clause] = ()
) -> Judged:
    """What a picture got right.

    Per clause with n wanted and m found, the dense score has the terms

        1 - |n - m| / n
        m != n:   0 if the clause has a colour or a position
        m = n:    1 - |n - n_colour| / n if it has a colour
                  1 or 0 for the position, if it has one and the colours were right

    Args:
        found: detections by class, the surest first.
        include: what must be there.
        exclude: what must not be there in this number or more; no term of the dense score.
    """
    terms, official, strict = [], [], True
    groups: list[Sequence[Detection] | None] = []
    for clause in include:
        things = list(found.get(clause.name, ()))
        own, quirk, right = _terms(things, clause, groups)
        terms += own
        official += quirk
        strict = strict and right
        groups.append(things if right else None)
    unwanted = any(len(found.get(clause.name, ())) >= clause.count for clause in exclude)
    return Judged(
        dense=_mean(terms),
        dense_official=_mean(official),
        strict_correct=strict and not unwanted,
        correct=_at_least(found, include) and not unwanted,
    )


def colour_crop(image: Image, box: Box, mask: np.ndarray) -> Image:
    """What the colour classifier sees of an object: its box, with #999 where the mask is 0.

    Args:
        image: the whole picture.
        box: of the object.
        mask: bool or 0 and 1, (height, width) of the picture.
    """
    import numpy as np
    import PIL.Image

    background = PIL.Image.new("RGB", image.size, "#999")
    cover = PIL.Image.fromarray((np.asarray(mask) != 0).astype(np.uint8) * 255)
    left, top, right, bottom = (round(edge) for edge in box)
    return PIL.Image.composite(image.convert("RGB"), background, cover).crop((left, top, right, bottom))


def colour_prompts(name: str) -> dict[str, list[str]]:
    """For each colour the texts whose mean CLIP embedding stands for it; the crop has the colour of the nearest."""
    return {colour: [text.format(colour=colour, name=name) for text in TEMPLATES] for colour in COLOURS}


def _terms(
    things: Sequence[Detection], clause: Clause, groups: Sequence[Sequence[Detection] | None]
) -> tuple[list[float], list[float], bool]:
    """Terms of a clause, the same with the official quirk, and whether it holds exactly."""
    n = clause.count
    terms = [1 - abs(n - len(things)) / n]
    if len(things) != n:
        terms += [0.0] if clause.colour is not None or clause.position is not None else []
        return terms, terms, False
    if clause.colour is not None:
        coloured = sum(thing.colour == clause.colour for thing in things)
        terms.append(1 - abs(n - coloured) / n)
        if coloured != n:
            return terms, terms, False
    if clause.position is None:
        return terms, terms, True
    relation, number = clause.position
    targets = groups[number]
    if targets is None:  # there is nothing that they could be left of
        return [*terms, 0.0], [*terms, 0.0], False
    placed = _placed(things, relation, targets)
    return [*terms, float(placed)], [*terms, 1.0] if placed else [*terms, 0.0, 1.0], placed


def _at_least(found: Mapping[str, Sequence[Detection]], include: Sequence[Clause]) -> bool:
    """The benchmark's rule: of each class the surest n, their colours, their places."""
    groups: list[Sequence[Detection] | None] = []
    for clause in include:
        things = list(found.get(clause.name, ()))[: clause.count]
        right = len(things) == clause.count
        right = right and (clause.colour is None or all(thing.colour == clause.colour for thing in things))
        if right and clause.position is not None:
            targets = groups[clause.position[1]]
            right = targets is not None and _placed(things, clause.position[0], targets)
        groups.append(things if right else None)
    return None not in groups


def _placed(things: Sequence[Detection], relation: str, targets: Sequence[Detection]) -> bool:
    return all(relation in relations(thing.box, target.box) for thing in things for target in targets)


def _mean(terms: Sequence[float]) -> float:
    return sum(terms) / len(terms) if terms else 0.0
