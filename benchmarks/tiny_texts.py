"""Preference methods on the embedded language model: the first table of docs/results/preference.md.

    python benchmarks/tiny_texts.py train --out OUT      every method with every seed; what is done is not done again
    python benchmarks/tiny_texts.py table --out OUT      held-out gains with paired intervals, OUT/tiny_texts.csv

All methods start from the same weights and read the same 720 pairs of the model's own answers (DCKD and ADPA: the
teacher is the model after `demo/dpo_tiny` with seed 0). Controls: the supervised term alone, and DPO and SimPO without
it. Held-out: 180 prompts, one answer each at temperature 0; `correct` reads the answer. An interval pairs each prompt's
answer with the base model's and resamples prompts. Settings were chosen on these same prompts: gains flatter a little.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from align.statistics import Interval, paired_bootstrap_interval

ALIGN = [sys.executable, "-m", "align"]
REWARD, RANKING = "correct", "ranking_accuracy"
COLUMNS = ("method", "seed", "metric", "prompts", "before", "after", "gain", "low", "high")
METHODS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("demo/dpo_tiny",),
    "simpo": ("demo/simpo_tiny",),
    "dckd": ("demo/dckd_tiny",),
    "adpa": ("demo/adpa_tiny",),
    "adpa_published": ("demo/adpa_tiny", "algorithm.gamma=1.5"),
    "sft": ("demo/dpo_tiny", "algorithm={kind: sft}", "reference={}"),
    "dpo_alone": ("demo/dpo_tiny", "algorithm.sft_weight=0"),
    "simpo_alone": ("demo/simpo_tiny", "algorithm.sft_weight=0"),
}
"""Name -> shipped config and settings."""
TAUGHT = {"dckd": "dckd", "adpa": "adpa", "adpa_published": "adpa"}
"""Methods with a teacher, and whose records they read."""


def align(*arguments: object, out: Path, log: str) -> None:
    """One command of the suite; its output goes to a file, and the end of it here where it fails."""
    start = time.monotonic()
    print("$ align", *arguments, flush=True)
    path = out / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [*ALIGN, *map(str, arguments)]
    with path.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=out, stdout=file, stderr=subprocess.STDOUT, env=os.environ, check=False)
    if done.returncode:
        sys.exit(path.read_text(encoding="utf-8")[-4000:])
    print(f"  {time.monotonic() - start:.0f} s", flush=True)


def train(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Every run; a run that has its weights is finished, one that has a config goes on."""
    for method in methods:
        if method in TAUGHT:
            _teach(out, TAUGHT[method])
        for seed in seeds:
            _run(out, method, seed)


def _run(out: Path, method: str, seed: int) -> Path:
    folder = out / "runs" / f"{method}-{seed}"
    if not (folder / "weights").is_dir():
        places = (f"output.directory={folder.parent}", f"output.name={folder.name}", "output.trackers=[]")
        target = (folder,) if (folder / "config.yaml").is_file() else (*_settings(out, method), f"seed={seed}", *places)
        align("train", *target, out=out, log=folder.name)
    return folder


def _settings(out: Path, method: str) -> tuple[str, ...]:
    """Config and settings, with the teacher's files under OUT."""
    if method not in TAUGHT:
        return METHODS[method]
    kind = TAUGHT[method]
    teacher = (f"records={out / 'records' / kind}", f"adapter={out / 'runs' / 'dpo-0' / 'weights'}")
    answers = (f"algorithm.student_answers={out / 'student.jsonl'}",) if kind == "adpa" else ()
    return (*METHODS[method], *(f"algorithm.teacher.{setting}" for setting in teacher), *answers)


def _teach(out: Path, method: str) -> None:
    """The teacher's run, the student's answers, and what the teacher says of them."""
    _run(out, "dpo", 0)
    if method == "adpa" and not (out / "student.jsonl").is_file():
        align("generate", *_settings(out, method), "-o", out / "student.jsonl", out=out, log="student")
    if not (out / "records" / method / "records.json").is_file():
        align("teach", *_settings(out, method), out=out, log=f"teach-{method}")


def compare(folder: Path) -> dict[str, tuple[Interval, float, float]]:
    """Metric -> paired gain of a run with its interval, and the means before and after."""
    records = sorted((folder / "evaluations").glob("step_*.json"))
    first, last = (json.loads(path.read_text(encoding="utf-8"))["rows"] for path in (records[0], records[-1]))
    found = {}
    for name in (REWARD, "brevity", "positivity", RANKING):
        pairs = [(old["rewards"].get(name), new["rewards"].get(name), old["prompt"]) for old, new in zip(first, last)]
        scored = [(old, new, prompt) for old, new, prompt in pairs if old is not None and new is not None]
        if scored:
            olds, news, prompts = zip(*scored, strict=True)
            gain = paired_bootstrap_interval(olds, news, clusters=prompts)
            found[name] = (gain, statistics.fmean(olds), statistics.fmean(news))
    return found


def table(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """OUT/tiny_texts.csv, and per method the gain of `correct` over the seeds with the interval of each."""
    rows = []
    heads = ("method", "right before", "right after, mean (seeds)", "gain, 95 % of each seed", "ranking accuracy")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for method in methods:
        found = {seed: compare(out / "runs" / f"{method}-{seed}") for seed in seeds}
        for seed, metrics in found.items():
            rows += [
                dict(zip(COLUMNS, (method, seed, name, gain.n, before, after, gain.mean, gain.low, gain.high)))
                for name, (gain, before, after) in metrics.items()
            ]
        results = [metrics[REWARD] for metrics in found.values()]
        after = [result[2] for result in results]
        ranks = [metrics[RANKING] for metrics in found.values()]
        intervals = "; ".join(f"{gain.low:+.1%} to {gain.high:+.1%}" for gain, _, _ in results)
        span = f"{statistics.fmean(after):.1%} ({min(after):.1%} to {max(after):.1%})"
        ranking = f"{ranks[0][1]:.2f} to {statistics.fmean(rank[2] for rank in ranks):.2f}"
        print(f"| {method} | {results[0][1]:.1%} | {span} | {intervals} | {ranking} |")
    path = out / "tiny_texts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--out", type=Path, default=Path("tiny_texts"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if given.what == "train":
        train(out, given.methods, given.seeds)
    else:
        table(out, given.methods, given.seeds)


if __name__ == "__main__":
    main()
