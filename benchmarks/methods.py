"""All image methods on the embedded model at equal seconds: the figures of docs/results/diffusion.md.

    python benchmarks/methods.py time       seconds per step of each method -> OUT/time.csv
    python benchmarks/methods.py tune       every trial of every method for --seconds, one seed -> OUT/tune.csv
    python benchmarks/methods.py compare    the best trial of each, three new seeds, held-out curves -> OUT/compare.csv
    python benchmarks/methods.py plot       OUT/compare.csv -> curves and a table

Every run has one thread. A run's length is --seconds divided by the method's seconds per step as `time` found them, so
`tune` and `compare` may share the machine with other work: their x axis is steps times seconds per step, not the clock.
Evaluations and loading do not count. All methods have the same model, prompts, rewards, pictures per step and number
of trials (learning rates); everything else is in `METHODS`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ALIGN = [sys.executable, "-m", "align"]
HERE = Path(__file__).resolve().parent.parent
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
TUNING_SEED = 100
PICTURES = 48
TIMED_ROUNDS = 6
SUCCESS = "shapes_strict"

COMMON = (
    "recipe=null",
    "rollout.prompts_per_step=6",
    "rollout.group_size=8",
    "rollout.batch_size=48",
    "training.ema={decay: 0.9}",
    "training.micro_batch_size=48",
    "evaluation.seeds=2",
    "evaluation.strip_every=0",
    "checkpoint.every=100000",
    "checkpoint.keep_best=0",
    "output.images_every=0",
    "output.trackers=[]",
)
FLOW_SDE = "rollout.sampler={kind: flow_sde, noise_level: 0.7}"
ODE = "rollout.sampler={kind: ode}"
ALONE = ("rollout.prompts_per_step=48", "rollout.group_size=1")
LOOP_BASE = ("pipeline.base={kind: rloo}", "pipeline.clip=null")


def chain(kind: str, **settings: str) -> str:
    """The override that chooses a method, with its settings."""
    return "algorithm={" + ", ".join([f"kind: {kind}", *(f"{k}: {v}" for k, v in settings.items())]) + "}"


WINDOW = "{kind: random_window, size: 2, earliest: 0.0, latest: 0.5}"
TIMES = "{kind: discrete, draws: 4, initial: allow, until: 0.9}"
TWICE = "training.updates_per_rollout=2"
METHODS: Mapping[str, tuple[str, ...]] = {
    "REINFORCE": (*ALONE, FLOW_SDE, "pipeline.base={kind: dr_grpo, singleton: raw}", chain("reinforce")),
    "RLOO": (FLOW_SDE, *LOOP_BASE, chain("reinforce")),
    "PPO (DDPO)": (*ALONE, FLOW_SDE, "pipeline.base={kind: ddpo_tracked}", chain("ddpo", clip_range="1e-3"), TWICE),
    "LOOP": (FLOW_SDE, *LOOP_BASE, chain("loop", clip_range="1e-3"), TWICE),
    "Flow-GRPO": (FLOW_SDE, chain("flow_grpo", clip_range="1e-3"), TWICE),
    "Flow-GRPO-Fast": (
        "rollout.sampler={kind: cps, noise_level: 0.8}",
        chain("flow_grpo", clip_range="1e-3", steps=WINDOW),
        TWICE,
    ),
    "AWM": (),
    "NFT": (ODE, chain("nft", times=TIMES)),
    "online DPO": (ODE, chain("online_dpo", times="{kind: logit_normal, draws: 4}")),
    "RWR": (ODE, chain("rwr", times=TIMES, temperature="0.1")),
    "SFT on the best": (ODE, chain("sft_best", times=TIMES)),
}
"""Method -> overrides of `demo/awm_tiny`; what is not named here is as in the demo."""


def trials(name: str) -> list[tuple[str, ...]]:
    """Overrides of every trial of a method: one for each learning rate."""
    return [(*METHODS[name], f"optimizer.learning_rate={rate}") for rate in RATES]


def run(folder: Path, overrides: Sequence[str]) -> list[dict[str, float]]:
    """A run in `folder` (taken up where it stopped); its lines of metrics."""
    if not (folder / "report.html").is_file():
        target = [str(folder)] if (folder / "config.yaml").is_file() else ["demo/awm_tiny"]
        names = [f"output.directory={folder.parent}", f"output.name={folder.name}"]
        command = [*ALIGN, "train", *target, *COMMON, *overrides, *names]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV file with the first row's keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def slug(method: str) -> str:
    """A folder's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in method)


def evaluations_per_picture(overrides: Sequence[str]) -> float:
    """Network evaluations for a picture and its training (a backward pass counts as two), by `align plan`."""
    command = [*ALIGN, "plan", "demo/awm_tiny", *COMMON, *overrides, "--json"]
    plan = json.loads(subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout)
    rows = next(section["rows"] for section in plan["sections"] if section["title"].startswith("Network evaluations"))
    return float(rows[-1][1].replace(",", ""))


def time_methods(arguments: argparse.Namespace) -> None:
    """Seconds of a whole step (rollout, reward, update) of each method: the least of several rounds through all.

    All methods live in one process and take turns, so that a slow moment of the machine hits everybody.
    """
    import torch
    from update_floor import Assembled, seconds

    torch.set_num_threads(1)
    least: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Assembled([*COMMON, *trials(name)[0]], Path(folder), slug(name)) for name in arguments.methods}
        for number in range(TIMED_ROUNDS):
            for name, one in runs.items():
                spent = seconds(one.step)
                least[name] = min(spent, least.get(name, spent))
            print(f"round {number + 1}: { ({name: round(value, 2) for name, value in least.items()}) }", flush=True)
        for one in runs.values():
            one.run.folder.close()
    rows = [
        {
            "method": name,
            "seconds_per_step": round(value, 4),
            "evaluations": evaluations_per_picture(trials(name)[0]),
        }
        for name, value in least.items()
    ]
    write(arguments.output / "time.csv", rows)


def steps_for(arguments: argparse.Namespace, name: str) -> int:
    """Steps that take --seconds."""
    timed = {row["method"]: float(row["seconds_per_step"]) for row in read(arguments.output / "time.csv")}
    return max(2, round(arguments.seconds / timed[name]))


def success(lines: Sequence[Mapping[str, float]]) -> list[tuple[int, float]]:
    """(step, held-out success) of every evaluation."""
    key = f"eval/{SUCCESS}/mean"
    return [(int(line["step"]), line[key]) for line in lines if key in line]


def tune(arguments: argparse.Namespace) -> None:
    """Every trial of every method."""
    jobs = [(name, number) for name in arguments.methods for number in range(len(trials(name)))]

    def trial(job: tuple[str, int]) -> dict[str, object]:
        name, number = job
        overrides = trials(name)[number]
        length = [f"training.steps={steps_for(arguments, name)}", f"seed={TUNING_SEED}", "evaluation.every=0"]
        lines = run(arguments.output / "tune" / f"{slug(name)}_{number}", [*overrides, *length])
        (_, before), *_, (_, after) = success(lines)
        row = {"method": name, "trial": number, "before": round(before, 4), "after": round(after, 4)}
        row["settings"] = " ".join(overrides[len(METHODS[name]) :])
        print(row, flush=True)
        return row

    with ThreadPoolExecutor(arguments.parallel) as pool:
        write(arguments.output / "tune.csv", list(pool.map(trial, jobs)))


def best_trials(arguments: argparse.Namespace) -> dict[str, int]:
    """Method -> the trial with the highest success after tuning."""
    best: dict[str, dict[str, str]] = {}
    for row in read(arguments.output / "tune.csv"):
        if row["method"] not in best or float(row["after"]) > float(best[row["method"]]["after"]):
            best[row["method"]] = row
    return {name: int(row["trial"]) for name, row in best.items()}


def compare(arguments: argparse.Namespace) -> None:
    """The best trial of each method with new seeds, evaluated along the way."""
    best = best_trials(arguments)
    timed = {row["method"]: row for row in read(arguments.output / "time.csv")}
    jobs = [(name, seed) for name in arguments.methods for seed in SEEDS]

    def curve(job: tuple[str, int]) -> Iterator[dict[str, object]]:
        name, seed = job
        steps = steps_for(arguments, name)
        length = [f"training.steps={steps}", f"seed={seed}", f"evaluation.every={max(1, steps // arguments.points)}"]
        lines = run(arguments.output / "compare" / f"{slug(name)}_{seed}", [*trials(name)[best[name]], *length])
        print(name, seed, [round(value, 3) for _, value in success(lines)], flush=True)
        for step, value in success(lines):
            yield {
                "method": name,
                "seed": seed,
                "step": step,
                "seconds": round(step * float(timed[name]["seconds_per_step"]), 2),
                "evaluations": round(step * PICTURES * float(timed[name]["evaluations"])),
                "success": round(value, 4),
            }

    with ThreadPoolExecutor(arguments.parallel) as pool:
        write(
            arguments.output / "compare.csv",
            [row for rows in pool.map(lambda job: list(curve(job)), jobs) for row in rows],
        )


def plot(arguments: argparse.Namespace) -> None:
    """Curves against seconds and against network evaluations, with the range over seeds; a table of the ends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read(arguments.output / "compare.csv")
    names = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), sharey=True)
    colours = plt.get_cmap("tab20")
    print("| method | success before | after, mean of seeds | range |\n|---|--:|--:|--:|")
    for number, name in enumerate(names):
        curves = [[row for row in rows if row["method"] == name and row["seed"] == str(seed)] for seed in SEEDS]
        values = [[100 * float(row["success"]) for row in curve] for curve in curves]
        mean = [statistics.mean(point) for point in zip(*values)]
        low, high = ([edge(point) for point in zip(*values)] for edge in (min, max))
        for axis, key, unit in zip(axes, ("seconds", "evaluations"), (1, 1e3)):
            x = [float(row[key]) / unit for row in curves[0]]
            axis.plot(x, mean, label=name, color=colours(number), marker="o", markersize=3)
            axis.fill_between(x, low, high, color=colours(number), alpha=0.15, linewidth=0)
        print(f"| {name} | {mean[0]:.1f} % | {mean[-1]:.1f} % | {low[-1]:.1f}–{high[-1]:.1f} |")
    axes[0].set(xlabel="seconds of training, one core", ylabel="held-out captions that are right, %")
    axes[1].set(xlabel="network evaluations, thousands (a backward pass counts as two)")
    axes[0].legend(fontsize=8, ncol=2)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(arguments.output / "methods.png", dpi=130)
    print(f"written: {arguments.output / 'methods.png'}")


COMMANDS = {"time": time_methods, "tune": tune, "compare": compare, "plot": plot}


def main() -> None:
    """Parse and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seconds", type=float, default=90.0, help="training seconds of a run")
    parser.add_argument("--points", type=int, default=5, help="evaluations along a curve")
    parser.add_argument("--parallel", type=int, default=2, help="runs at once")
    arguments = parser.parse_args()
    arguments.output = arguments.output.resolve()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
