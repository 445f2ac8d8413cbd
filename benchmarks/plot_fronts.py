"""Fronts and hypervolumes of a page of `align sweep`.

    python benchmarks/plot_fronts.py PAGE/sweep.json -o docs/images/steering.png

A projection for each pair of objectives: points are means over seeds, small dots single seeds, lines what a system
reaches in these two objectives. The last picture has the hypervolume of each system with its interval, and of seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.shaping.pareto import hypervolume, in_unit_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888")
COLUMNS = 2

Points = Sequence[Mapping[str, Any]]


def reached(values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the region that no point lies above and right of, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(values), reverse=True):
        if not front or y > front[-1][1]:
            front += [(x, front[-1][1]), (x, y)] if front else [(x, y)]
    return front[::-1]


def points_of(data: Mapping[str, Any]) -> dict[str, Points]:
    """System -> its points."""
    return {one["name"]: [p for p in data["points"] if p["system"] == one["name"]] for one in data["systems"]}


def seed_hypervolumes(points: Points, box: Mapping[str, Mapping[str, float]]) -> list[float]:
    """Of one system, for each seed, in the box of the page."""
    low, high = ([box[name][end] for name in box] for end in ("low", "high"))
    volumes = []
    for seed in range(min(len(point["seeds"]) for point in points)):
        means = [[point["seeds"][seed][name] for name in box] for point in points]
        volumes.append(hypervolume(in_unit_box(means, low, high), torch.zeros(len(box))))
    return volumes


def projection(axis: Axes, points: Points, x: str, y: str, colour: str, label: str) -> None:
    """One system in two objectives."""
    means = [(point["means"][x]["mean"], point["means"][y]["mean"]) for point in points]
    axis.plot(*zip(*reached(means), strict=True), "-", color=colour, linewidth=1)
    axis.plot(*zip(*means, strict=True), "o", color=colour, label=label)
    seeds = [(seed[x], seed[y]) for point in points for seed in point["seeds"]]
    axis.plot(*zip(*seeds, strict=True), ".", color=colour, alpha=0.35, markersize=4)


def bars(axis: Axes, data: Mapping[str, Any], by_system: Mapping[str, Points]) -> None:
    """Hypervolumes."""
    for place, one in enumerate(data["systems"]):
        volume, seeds = one["hypervolume"], seed_hypervolumes(by_system[one["name"]], data["box"])
        axis.barh(place, volume["mean"], color=COLOURS[place % len(COLOURS)], alpha=0.75)
        axis.plot([volume["low"], volume["high"]], [place, place], color="black", linewidth=1)
        axis.plot(seeds, [place] * len(seeds), "o", color="black", markersize=3)
    axis.set_yticks(range(len(data["systems"])), [one["name"].replace("_", " ") for one in data["systems"]])
    axis.invert_yaxis()
    axis.set_xlabel("hypervolume; line: 95 %, dots: seeds")


def draw(data: Mapping[str, Any], path: Path, labels: Mapping[str, str] | None = None) -> None:
    """The picture. `labels`: objective -> its axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_system = points_of(data)
    labels = {name: name.replace("_", " ") for name in data["objectives"]} | dict(labels or {})
    pairs = list(combinations(data["objectives"], 2))
    rows = -(-(len(pairs) + 1) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(11, 4.2 * rows), layout="constrained", squeeze=False)
    for axis, (x, y) in zip(axes.flat, pairs, strict=False):
        for place, (name, points) in enumerate(by_system.items()):
            projection(axis, points, x, y, COLOURS[place % len(COLOURS)], name.replace("_", " "))
        if data["base"]:
            axis.plot(data["base"][x]["mean"], data["base"][y]["mean"], "k*", markersize=11, label="before training")
        axis.set(xlabel=labels[x], ylabel=labels[y])
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    for axis in list(axes.flat)[len(pairs) + 1 :]:
        axis.set_axis_off()
    bars(axes.flat[len(pairs)], data, by_system)
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path, help="sweep.json of the page")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    draw(json.loads(given.sweep.read_text(encoding="utf-8")), given.output)


if __name__ == "__main__":
    main()
