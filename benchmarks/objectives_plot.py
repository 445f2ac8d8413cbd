"""Figures and tables of objectives.py and objectives_judge.py: fronts, pictures at each point, weights of captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from methods import write
from objectives import OBJECTIVES, WEIGHTS
from PIL import Image
from plot_fronts import draw, points_of, seed_hypervolumes

LABELS = {"shapes_strict": "whole captions right", "compressibility": "minus kB", "colourfulness": "colourfulness"}
TARGET_COLOURS = ("#228833", "#aa3377")
SHOWN = (0, 2, 4, 6)
"""Places of the pictures shown at each point: held-out captions in the order of the evaluation."""
TILE, GAP = 64, 6


def found(out: Path, what: str) -> dict[str, Any]:
    """The numbers of the page."""
    return json.loads((out / what / "sweep.json").read_text(encoding="utf-8"))


def front_figure(out: Path) -> None:
    """Three projections and the hypervolumes; CSVs; the pictures at each point."""
    data = found(out, "fronts")
    by_system = points_of(data)
    draw(data, out / "fronts.png", LABELS)
    _tables(out, data, by_system)
    picture_figure(out, list(by_system), data)
    print(f"written: {out / 'pictures.png'}")


def _tables(out: Path, data: Mapping[str, Any], by_system: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    points, volumes = [], []
    for one in data["systems"]:
        own = by_system[one["name"]]
        numbers = {
            f"{name} {part}": round(one[name][part], 4)
            for name in ("hypervolume", "expected_utility", "igd_plus")
            for part in ("mean", "low", "high")
        }
        seeds = " ".join(f"{value:.4f}" for value in seed_hypervolumes(own, data["box"]))
        volumes.append({"system": one["name"], "points": len(own), **numbers, "hypervolume of the seeds": seeds})
        for point in own:
            line = {"system": one["name"], "point": point["point"], "on front of all": point["on_front"]}
            for name in OBJECTIVES:
                line |= {f"{name} {part}": round(point["means"][name][part], 4) for part in ("mean", "low", "high")}
                line[f"{name} seeds"] = " ".join(f"{seed[name]:.4f}" for seed in point["seeds"])
            points.append(line)
    write(out / "fronts.csv", points)
    write(out / "hypervolumes.csv", volumes)
    keys = ("first", "second", "mean", "low", "high")
    write(out / "differences.csv", [{key: one[key] for key in keys} for one in data["differences"]])


def tiles(run: Path, step: int, places: Sequence[int]) -> list[Image.Image]:
    """Pictures of an evaluation."""
    return [
        Image.open(run / f"evaluations/pictures/step_{step:06d}/{place:03d}.png").convert("RGB") for place in places
    ]


def picture_figure(out: Path, names: Sequence[str], data: Mapping[str, Any], seed: int = 0) -> None:
    """A row for each system, a block of the same captions for each of its points; the first row is before training."""
    import matplotlib.pyplot as plt

    sources = [one for one in data["sources"] if one["seed"] == seed]
    runs = {(one["system"], one["point"]): Path(one["where"].rpartition(", step ")[0]) for one in sources}
    last = int(sources[0]["where"].rpartition(", step ")[2])
    labels = {name: [one["point"] for one in data["points"] if one["system"] == name] for name in names}
    rows = [[tiles(next(iter(runs.values())), 0, SHOWN)]]
    rows += [[tiles(runs[name, point], last, SHOWN) for point in labels[name]] for name in names]
    drawn = sheet(rows)
    figure, axis = plt.subplots(figsize=(drawn.width / 95, drawn.height / 95), layout="constrained")
    axis.imshow(drawn)
    axis.set_yticks(
        [(row + 0.5) * (TILE + GAP) for row in range(len(rows))], ["before", *(n.replace("_", " ") for n in names)]
    )
    block = len(SHOWN) * (TILE + 1) + GAP
    axis.set_xticks(
        [(column + 0.5) * block for column in range(len(WEIGHTS))], ["even (PRO: alone)", *list(WEIGHTS)[1:]]
    )
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    figure.savefig(out / "pictures.png", dpi=110)


def sheet(rows: Sequence[Sequence[Sequence[Image.Image]]]) -> Image.Image:
    """Rows of blocks of pictures, on white."""
    width = max(sum(len(block) * (TILE + 1) + GAP for block in row) for row in rows)
    result = Image.new("RGB", (width, len(rows) * (TILE + GAP)), "white")
    for number, row in enumerate(rows):
        x = 0
        for block in row:
            for picture in block:
                result.paste(picture.resize((TILE, TILE)), (x, number * (TILE + GAP)))
                x += TILE + 1
            x += GAP
    return result


def pro_figure(path: Path, lines: Sequence[Mapping], weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Agreement and regret of all; weights by class of what the annotator thinks and what two adapters say."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whole, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1, 1, 1.5))
    for axis, quantity in zip(axes, ("agreement", "regret"), strict=False):
        for place, line in enumerate(lines):
            colour = "#bbbbbb" if not line["weights"].startswith("PRO") else TARGET_COLOURS[" paper" in line["weights"]]
            axis.barh(place, line[f"{quantity}_mean"], color=colour)
            axis.plot([line[f"{quantity}_low"], line[f"{quantity}_high"]], [place, place], color="black", linewidth=1)
            seeds = [float(value) for value in line[f"{quantity}_seeds"].split()]
            axis.plot(seeds, [place] * len(seeds), "o", color="black", markersize=3)
        axis.set_yticks(range(len(lines)), [line["weights"] for line in lines] if axis is axes[0] else [])
        axis.invert_yaxis()
        axis.set_xlabel({"agreement": "agreement with the annotator", "regret": "regret of the best of 8"}[quantity])
    axes[0].set_xlim(left=0.5)
    shown = {"annotator": "annotator", "contrastive": "PRO contrastive, 1200 pairs", "paper": "PRO paper, 1200 pairs"}
    for offset, (label, name) in zip((-0.27, 0, 0.27), shown.items(), strict=True):
        bottom = np.zeros(len(weights[name]))
        for colour, part in zip(
            ("#4477aa", "#ccbb44", "#ee6677"), np.array(list(weights[name].values())).T, strict=True
        ):
            axes[2].bar(np.arange(len(bottom)) + offset, part, 0.24, bottom=bottom, color=colour, edgecolor="white")
            bottom += part
        for place in range(len(bottom)):
            axes[2].text(place + offset, 1.01, label[0], ha="center", fontsize=7)
    axes[2].set_xticks(range(len(weights["annotator"])), list(weights["annotator"]), fontsize=8)
    axes[2].set_title(
        "weights of success (below), compressibility, colourfulness:\nannotator, PRO contrastive, PRO paper", fontsize=8
    )
    whole.savefig(path, dpi=110)
    print(f"written: {path}")
