"""The checkable reward: the share of a caption's constraints that a picture satisfies. A small GenEval, not learnt.

The rule. Objects seen are matched one to one with objects wanted so that the number of satisfied object constraints is
largest. Then there are, with equal weight,

* two constraints per wanted object: an object of its colour exists; that object has its shape, too. (A right shape in a
  wrong colour earns nothing: binding a colour to its shape is what is tested.)
* one for the count: exactly as many objects as wanted, none extra;
* one for the place, the relation or the two sizes, if the caption asks for one. It needs the matched objects by colour.

The score is satisfied / all, in [0, 1], so each repaired fault raises it; `strict` is 1 if all hold and 0 otherwise.
Example: "a red circle and a blue square", seen a red circle and a blue blob: colours 2, shapes 1, count 1 of 5 = 0.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from diffusion.tiny import world
from diffusion.tiny.reader import Seen, read

MIN_SHIFT = 5.0  # pixels from the middle (place), or between two centres (relation)
MIN_SIZE_RATIO = 1.3  # of radii; the painter draws 12 +- 1 against 6 +- 1


@dataclass(frozen=True)
class Verdict:
    """Which constraints hold, by name, in a fixed order."""

    checks: dict[str, bool]

    @property
    def score(self) -> float:
        """Share of constraints that hold, in [0, 1]."""
        return sum(self.checks.values()) / len(self.checks)

    @property
    def strict(self) -> float:
        """1.0 if every constraint holds, else 0.0."""
        return float(all(self.checks.values()))


def judge(spec: world.Spec, seen: Sequence[Seen]) -> Verdict:
    """Check every constraint of a spec against the objects seen in a picture."""
    matched = _match(spec.things, seen)
    checks: dict[str, bool] = {}
    for number, (thing, item) in enumerate(zip(spec.things, matched, strict=True)):
        checks[f"colour{number}"] = item is not None
        checks[f"shape{number}"] = item is not None and item.shape == thing.shape
    checks["count"] = len(seen) == len(spec.things)
    demands = {"placed": _placed, "relation": _related, "size": _sized}
    if spec.kind in demands:
        present = [item for item in matched if item is not None]
        checks[spec.kind] = len(present) == len(matched) and demands[spec.kind](spec, present)
    return Verdict(checks)


def _match(things: Sequence[world.Thing], seen: Sequence[Seen]) -> list[Seen | None]:
    """For each wanted object the seen object of its colour that suits best, or None; nothing is used twice."""
    if not seen:
        return [None] * len(things)
    worth = np.array([[_worth(thing, item) for item in seen] for thing in things])
    rows, columns = linear_sum_assignment(worth, maximize=True)
    chosen = {row: seen[column] for row, column in zip(rows, columns, strict=True) if worth[row, column] > 0}
    return [chosen.get(row) for row in range(len(things))]


def _worth(thing: world.Thing, item: Seen) -> float:
    """Satisfied constraints of this pairing; the area only breaks ties, towards the larger object."""
    if item.colour != thing.colour:
        return 0.0
    return 1.0 + (item.shape == thing.shape) + item.area / (2 * world.SIDE**2)


def _placed(spec: world.Spec, items: Sequence[Seen]) -> bool:
    middle = world.SIDE / 2
    return _points(items[0].x - middle, items[0].y - middle, spec.place)


def _related(spec: world.Spec, items: Sequence[Seen]) -> bool:
    direction = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}[spec.relation]
    return _points(items[0].x - items[1].x, items[0].y - items[1].y, direction)


def _points(dx: float, dy: float, direction: str) -> bool:
    """Whether the offset (dx, dy) goes at least `MIN_SHIFT` in a direction and more that way than sideways."""
    along, aside = {"left": (-dx, dy), "right": (dx, dy), "top": (-dy, dx), "bottom": (dy, dx)}[direction]
    return along >= MIN_SHIFT and along > abs(aside)


def _sized(spec: world.Spec, items: Sequence[Seen]) -> bool:
    small, large = sorted(zip(spec.things, items, strict=True), key=lambda pair: pair[0].size == "large")
    return large[1].radius >= MIN_SIZE_RATIO * small[1].radius


def verdicts(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Verdict | None]:
    """A verdict per picture; None where the prompt is not a caption of the drawn world."""
    if len(images) != len(prompts):
        raise ValueError(f"expected one prompt per picture, found {len(images)} pictures and {len(prompts)} prompts")
    return [_verdict(image, prompt) for image, prompt in zip(images, prompts, strict=True)]


def _verdict(image: Image.Image, prompt: str) -> Verdict | None:
    try:
        spec = world.parse(prompt)
    except ValueError:
        return None
    return judge(spec, read(image))


def shapes(*, images: Sequence[Image.Image], prompts: Sequence[str], **columns: object) -> list[float | None]:
    """Share of the caption's constraints that each picture satisfies, in [0, 1]; None outside the world's grammar."""
    return [None if verdict is None else verdict.score for verdict in verdicts(images, prompts)]


def shapes_strict(*, images: Sequence[Image.Image], prompts: Sequence[str], **columns: object) -> list[float | None]:
    """1.0 where every constraint holds and nothing is extra, else 0.0; None outside the world's grammar."""
    return [None if verdict is None else verdict.strict for verdict in verdicts(images, prompts)]
