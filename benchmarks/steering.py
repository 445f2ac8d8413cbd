"""One steered policy against soups and separately trained ones, on the embedded language model.

    python benchmarks/steering.py train --out OUT --seeds 0 1 2     what is done is not done again
    python benchmarks/steering.py page --out OUT --seeds 0 1 2      soups, their answers, and the page of `align sweep`

Trained are DPA, three policies for one objective each (their soups are seven points), and seven policies for one
direction each. Equal cost: DPA takes 400 steps and 2 x 700 prompts x 6 answers; the three that are mixed a third of
both each, the seven a seventh. All are trained by the same rounds (`preference/dpa`), the single ones without control
text. Held out: 60 prompts x 2 answers at temperature 1 for each of the seven directions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ALIGN = [sys.executable, "-m", "align"]
CONFIG = "objectives/dpa_tiny"
OBJECTIVES = ("correct", "brevity", "positivity")
STEPS, PROMPTS = 400, 700
DIRECTIONS: Mapping[str, tuple[float, float, float]] = {
    "correct": (1, 0, 0),
    "brevity": (0, 1, 0),
    "positivity": (0, 0, 1),
    "correct_brevity": (1, 1, 0),
    "correct_positivity": (1, 0, 1),
    "brevity_positivity": (0, 1, 1),
    "all": (1, 1, 1),
}


def align(*arguments: object, out: Path, log: str) -> None:
    """One command of the suite; its output goes to a file, and the end of it here where it fails."""
    start = time.monotonic()
    print("$ align", *arguments, flush=True)
    path = out / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*ALIGN, *map(str, arguments)], cwd=out, stdout=file, stderr=subprocess.STDOUT, env=os.environ, check=False
        )
    if done.returncode:
        sys.exit(path.read_text(encoding="utf-8")[-4000:])
    print(f"  {time.monotonic() - start:.0f} s", flush=True)


def run(out: Path, name: str, seed: int, *settings: str) -> Path:
    """A training run; one that has its weights is finished."""
    folder = out / "runs" / f"{name}-seed{seed}"
    if not (folder / "weights").is_dir():
        places = (f"output.directory={folder.parent}", f"output.name={folder.name}", "output.trackers=[]")
        align("train", CONFIG, f"seed={seed}", *places, *settings, out=out, log=folder.name)
    return folder


def single(direction: tuple[float, float, float], share: int) -> tuple[str, ...]:
    """Settings of a policy for one direction, at a share of the cost. It is evaluated with its own direction only."""
    named = ", ".join(f"{name}: {value}" for name, value in zip(OBJECTIVES, direction, strict=True))
    return (
        f"algorithm.directions={{kind: list, directions: [{{{named}}}]}}",
        "algorithm.placement=none",
        f"algorithm.prompts_per_round={PROMPTS // share}",
        f"training.steps={STEPS // share // 2 * 2}",
        f"checkpoint.every={STEPS // share // 2 * 2}",
        f"evaluation.directions=[{{{named}}}]",
    )


def train(out: Path, seeds: Sequence[int]) -> None:
    """All runs of all seeds."""
    for seed in seeds:
        run(out, "dpa", seed)
        for name in OBJECTIVES:
            run(out, f"alone_{name}", seed, *single(DIRECTIONS[name], 3))
        for name, direction in DIRECTIONS.items():
            run(out, f"one_{name}", seed, *single(direction, 7))


def page(out: Path, seeds: Sequence[int]) -> None:
    """Soups for the seven directions, evaluated as runs are, and everything on one page."""
    systems: dict[str, list[Path]] = {"dpa": [], "soup": [], "separate": []}
    for seed in seeds:
        systems["dpa"].append(out / "runs" / f"dpa-seed{seed}")
        systems["separate"] += [out / "runs" / f"one_{name}-seed{seed}" for name in DIRECTIONS]
        for name, direction in DIRECTIONS.items():
            soup = out / "soups" / f"{name}-seed{seed}"
            if not soup.is_dir():
                shares = [value / sum(direction) for value in direction]
                alone = [out / "runs" / f"alone_{one}-seed{seed}" for one in OBJECTIVES]
                parts = [f"{path}={share}" for path, share in zip(alone, shares, strict=True)]
                align("soup", *parts, "-o", soup, out=out, log=f"soup-{soup.name}")
            found = out / "evaluations" / soup.name
            if not found.is_dir():
                align("evaluate", soup, "-o", found, out=out, log=f"evaluate-{soup.name}")
            systems["soup"].append(found)
    sources = [f"{name}={','.join(map(str, paths))}" for name, paths in systems.items()]
    box = ("--reference", "correct=0,brevity=0.5,positivity=0.2", "--high", "correct=1,brevity=1,positivity=0.9")
    align("sweep", *sources, "--objectives", ",".join(OBJECTIVES), *box, "-o", out / "page", out=out, log="sweep")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "page"))
    parser.add_argument("--out", type=Path, default=Path("steering"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (train if given.what == "train" else page)(out, given.seeds)


if __name__ == "__main__":
    main()
