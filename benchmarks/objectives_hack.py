"""Figure and tables of `objectives.py hack`: what a weighted sum makes of two rewards, and what the AND does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from methods import write
from objectives import COMMON, HACK, HACK_WEIGHTS, OBJECTIVES, SEEDS, folder, weighed
from objectives_plot import LABELS, sheet, tiles
from plot_fronts import COLOURS

SHOWN = range(14)
REWARDS = ("success", *OBJECTIVES)
NAMED = {"hack": "1 : 2", "equal": "1 : 1"}
"""Success to compressibility."""


def run_of(out: Path, name: str, point: str, seed: int) -> Path:
    return out / "hack" / "runs" / f"{folder(name)}-{point}-seed{seed}"


def records(run: Path) -> list[dict]:
    """Evaluations, before training first."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((run / "evaluations").glob("step_*.json"))]


def hack_figure(out: Path) -> None:
    """Means along the training, and pictures before and after; CSVs of the means and of what each rule thinks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {key: [records(run_of(out, *key, seed)) for seed in SEEDS] for key in keys()}
    figure = plt.figure(figsize=(11, 8), layout="constrained")
    grid = figure.add_gridspec(6, 3, height_ratios=(4, 1, 1, 1, 1, 1))
    for column, objective in enumerate(OBJECTIVES):
        axis = figure.add_subplot(grid[0, column])
        for name, point in found:
            for seed, of_run in enumerate(found[name, point]):
                means = [one["rewards"][objective]["mean"] for one in of_run]
                axis.plot(
                    [one["step"] for one in of_run],
                    means,
                    "-" if point == "hack" else "--",
                    color=COLOURS[list(HACK).index(name)],
                    linewidth=1.2,
                    label=None if seed else f"{name}, {NAMED[point]}",
                )
        axis.set(xlabel="step", title=LABELS[objective])
        axis.grid(alpha=0.3)
    figure.axes[2].legend(fontsize=8, loc="center right")
    first = next(iter(found))
    last = found[first][0][-1]["step"]
    strips = {"before": (run_of(out, *first, 0), 0)}
    strips |= {f"{name}\n{NAMED[point]}": (run_of(out, name, point, 0), last) for name, point in found}
    for row, (label, (run, step)) in enumerate(strips.items(), start=1):
        axis = figure.add_subplot(grid[row, :])
        axis.imshow(sheet([[tiles(run, step, SHOWN)]]))
        axis.set_ylabel(label.replace("weighted sum", "sum"), fontsize=9)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.savefig(out / "hack.png", dpi=110)
    write(out / "hack.csv", [row for key in found for row in means_of(key, found[key])])
    write(out / "hack_scores.csv", scores_of(found))


def keys() -> list[tuple[str, str]]:
    """(combination, weights)."""
    return [(name, point) for point in HACK_WEIGHTS for name in HACK]


def means_of(key: tuple[str, str], seeds: Sequence[list[dict]]) -> list[dict]:
    """A row for each evaluation of each seed."""
    return [
        {
            "combination": key[0],
            "weights": NAMED[key[1]],
            "seed": seed,
            "step": one["step"],
            **{name: round(one["rewards"][name]["mean"], 4) for name in REWARDS},
        }
        for seed, of_run in zip(SEEDS, seeds, strict=True)
        for one in of_run
    ]


def scores_of(found: dict[tuple[str, str], list[list[dict]]]) -> list[dict]:
    """Mean score of the pictures before and after each training, by each combination at each weights."""
    pictures = {"before training": [next(iter(found.values()))[0][0]]}
    pictures |= {f"after {name}, {NAMED[point]}": [one[-1] for one in seeds] for (name, point), seeds in found.items()}
    lines = []
    for point in HACK_WEIGHTS:
        for label, evaluations in pictures.items():
            line: dict[str, object] = {"weights": NAMED[point], "pictures": label}
            for rule in HACK:
                means = [scored_by(rule, point, one["rows"]) for one in evaluations]
                line[rule] = round(sum(means) / len(means), 3)
            lines.append(line)
            print(line)
    return lines


def scored_by(rule: str, point: str, rows: Sequence[dict]) -> float:
    """Mean combined score of rows of an evaluation, by the suite's own pipeline."""
    from align.config.load import load_config
    from align.shaping.pipeline import SignalPipeline
    from align.types import RewardTable

    config = load_config("demo/awm_tiny", [*COMMON, *HACK[rule], *weighed(HACK_WEIGHTS[point])])
    names = tuple(reward.name for reward in config.rewards)
    values = torch.tensor([[row["rewards"][name] for name in names] for row in rows], dtype=torch.float64)
    weights = torch.tensor([reward.weight for reward in config.rewards], dtype=torch.float64)
    table = RewardTable(names=names, values=values, weights=weights)
    signal = SignalPipeline(config.pipeline)(table, torch.zeros(len(rows), dtype=torch.int64), update=False)
    return float(signal.scores.mean())
