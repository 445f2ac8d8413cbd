"""The numbers of a sweep as files hold them: nested for `sweep.json`, one a row for `sweep.csv`. No formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.inspect.sweep.frame import Frame
from align.inspect.sweep.measures import SHARES, Results
from align.inspect.sweep.systems import Sweep
from align.statistics import Interval

COLUMNS = ("what", "system", "point", "quantity", "mean", "low", "high")
"""Of `sweep.csv`."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A sweep with its numbers.

    Attributes:
        sweep: the scores.
        frame: the box.
        results: the numbers.
        notes: what a person should know of the sources, in sentences.
    """

    sweep: Sweep
    frame: Frame
    results: Results
    notes: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The objectives, higher is better."""
        return [one.name for one in self.sweep.objectives]


def options(found: Found) -> str:
    """The options that measure in the same box again."""
    ends = [
        ",".join(f"{name}={value:.6g}" for name, value in zip(found.names, end.tolist(), strict=True))
        for end in (found.frame.low, found.frame.high)
    ]
    return f"--reference {ends[0]} --high {ends[1]}"


def record(found: Found) -> Mapping[str, Any]:
    """All numbers of the page as plain data."""
    sweep, frame, results = found.sweep, found.frame, found.results
    by_name = zip(found.names, frame.low.tolist(), frame.high.tolist(), strict=True)
    return {
        "objectives": found.names,
        "box": {name: {"low": low, "high": high} for name, low, high in by_name},
        "box_origin": frame.origin,
        "prompts": len(sweep.prompts),
        "left_out": list(sweep.left_out),
        "resamples": results.resamples,
        "systems": [
            {
                "name": one.name,
                "points": one.points,
                "seeds": one.seeds,
                "front_points": one.front_points,
                "hypervolume": one.hypervolume._asdict(),
                "expected_utility": one.expected_utility._asdict(),
                "igd_plus": one.igd_plus._asdict(),
                "worst_change": None if one.worst_change is None else one.worst_change._asdict(),
                "control": {
                    name: None if value is None else value._asdict()
                    for name, value in zip(found.names, one.control, strict=False)
                },
                "attainment": None
                if one.attainment is None
                else {str(share): row for share, row in zip(SHARES, one.attainment.tolist(), strict=True)},
            }
            for one in results.systems
        ],
        "attainment_at": results.grid if len(found.names) == 2 else None,
        "differences": [
            {"first": first, "second": second, **one._asdict()} for (first, second), one in results.differences.items()
        ],
        "epsilons": [
            {"of": first, "to_cover": second, **one._asdict()} for (first, second), one in results.epsilons.items()
        ],
        "points": [
            {
                "system": one.system,
                "point": one.label,
                "on_front": one.on_front,
                "below_reference": list(one.below),
                "means": {name: mean._asdict() for name, mean in zip(found.names, one.means, strict=True)},
                "seeds": [dict(zip(found.names, values, strict=True)) for values in one.seeds],
                "worst": None if one.worst is None else {"objective": one.worst[0], **one.worst[1]._asdict()},
            }
            for one in results.points
        ],
        "base": None
        if results.base is None
        else {name: mean._asdict() for name, mean in zip(found.names, results.base, strict=True)},
        "sources": [
            {"system": point.system, "point": label, "seed": point.seed, "where": point.where, "unscored": gap}
            for point, label, gap in zip(sweep.points, sweep.labels, sweep.unscored, strict=True)
        ],
    }


def as_csv(found: Found) -> str:
    """Every number with an interval, one a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for what, system, point, quantity, one in _rows(found):
        writer.writerow((what, system, point, quantity, one.mean, one.low, one.high))
    return text.getvalue()


def _rows(found: Found) -> Iterator[tuple[str, str, str, str, Interval]]:
    for one in found.results.systems:
        for quantity in ("hypervolume", "expected_utility", "igd_plus", "worst_change"):
            value = getattr(one, quantity)
            if value is not None:
                yield "system", one.name, "", quantity, value
        for name, control in zip(found.names, one.control, strict=False):
            if control is not None:
                yield "system", one.name, "", f"control/{name}", control
    for (first, second), value in found.results.epsilons.items():
        yield "epsilon", f"{first} to cover {second}", "", "additive_epsilon", value
    for (first, second), value in found.results.differences.items():
        yield "difference", f"{first} - {second}", "", "hypervolume", value
    for one in found.results.points:
        for name, value in zip(found.names, one.means, strict=True):
            yield "point", one.system, one.label, name, value
        if one.worst is not None:
            yield "point", one.system, one.label, f"worst_change/{one.worst[0]}", one.worst[1]
    for name, value in zip(found.names, found.results.base or (), strict=False):
        yield "before training", "", "", name, value
