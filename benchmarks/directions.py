"""One picture policy for all trade-offs: does it follow the direction that it is asked for? docs/results/objectives.md.

python benchmarks/directions.py train --out OUT --seeds 0 1 2    what is done is not done again; one thread a seed
python benchmarks/directions.py table --out OUT --seeds 0 1 2    directions.csv, control.csv and directions.png in OUT
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from methods import write
from PIL import Image

ALIGN = [sys.executable, "-m", "align"]
CONFIG = "objectives/dpa_image_tiny"
OBJECTIVES = ("shapes", "compressibility", "colourfulness")
SHOWN = 3
"""Prompts in the picture: as many as an evaluation keeps pictures of under all directions."""


PARTS = ("mean", "low", "high")


def folder(out: Path, seed: int) -> Path:
    """Of a run."""
    return out / "runs" / f"dpa-seed{seed}"


def train(out: Path, seeds: Sequence[int]) -> None:
    """The config as it ships, once for each seed."""
    for seed in seeds:
        run = folder(out, seed)
        if not (run / "weights").is_dir():
            places = (f"output.directory={run.parent}", f"output.name={run.name}", "output.trackers=[]")
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([*ALIGN, "train", CONFIG, f"seed={seed}", *places], env=environment, check=True)


def evaluations(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Before and after."""
    first, *_, last = sorted((run / "evaluations").glob("step_*.json"))
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (first, last))
    return before, after


def table(out: Path, seeds: Sequence[int]) -> None:
    """Means of each direction and seed; control of each seed; pictures of the first."""
    points: list[Mapping[str, object]] = []
    control: list[Mapping[str, object]] = []
    for seed in seeds:
        before, after = evaluations(folder(out, seed))
        for name, means in {"before": before["rewards"], **after["classes"]}.items():
            values = {f"{what} {part}": round(means[what][part], 4) for what in OBJECTIVES for part in PARTS}
            points.append({"seed": seed, "direction": name, **values})
        for step, found in ((before["step"], before), (after["step"], after)):
            control.append({"seed": seed, "step": step, **{k: round(v, 4) for k, v in found["figures"].items()}})
    write(out / "directions.csv", points)
    write(out / "control.csv", control)
    strip(folder(out, seeds[0]), out / "directions.png")


def strip(run: Path, path: Path) -> None:
    """A row for each prompt: before training, then every direction, from the same noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before, after = evaluations(run)
    names = list(after["classes"])
    columns = ["before", *names]
    figure, axes = plt.subplots(SHOWN, len(columns), figsize=(1.3 * len(columns), 1.35 * SHOWN + 0.5), squeeze=False)
    for place, own in enumerate(axes):
        start = place * len(names)
        for axis, column in zip(own, columns, strict=True):
            found, row = (before, start) if column == "before" else (after, start + names.index(column))
            picture = f"evaluations/pictures/step_{found['step']:06d}/{row:03d}.png"
            axis.imshow(Image.open(run / picture).convert("RGB"))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if place == 0:
                axis.set_title(column.replace(", ", "\n"), fontsize=8)
        own[0].set_ylabel("\n".join(textwrap.wrap(after["rows"][start]["prompt"], 18)), fontsize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--out", type=Path, default=Path("directions"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (train if given.what == "train" else table)(out, given.seeds)


if __name__ == "__main__":
    main()
