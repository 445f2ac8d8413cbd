"""The figures of docs/results/first_light.md, each by one command.

    python benchmarks/first_light.py gain        the demo with seeds 0, 1, 2: held-out success before -> after
    python benchmarks/first_light.py resume      kill in a rollout, an update, a checkpoint; resume; compare bit for bit
    python benchmarks/first_light.py processes   two processes against one with the same global batch
    python benchmarks/first_light.py start       CPU seconds of `align --help`

Runs go to the folder `--output` (default: a temporary one) and stay there. Nothing is compared with a stored number.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ALIGN = [sys.executable, "-m", "align"]
SHORT = [
    "training.steps=5",
    "evaluation.seeds=1",
    "rollout.group_size=4",
    "checkpoint.every=2",
    "checkpoint.keep_last=9",
]

# What the child replaces before it starts the command line: the n-th call of the named function kills the process.
MOMENTS = {
    "inside a rollout": ("diffusion.models.sd3", "StableDiffusion3._forward", "rollout"),
    "inside an update": ("align.engine.accumulation", "Accumulator.backward", "update"),
    "while a checkpoint is written": ("align.engine.checkpoint", "_fingerprint", "checkpoint"),
}
CHILD = """
import importlib, os, signal, sys
module, path, wanted, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), 0
owner = importlib.import_module(module)
*outer, name = path.split(".")
for part in outer:
    owner = getattr(owner, part)
original = getattr(owner, name)
def deadly(*args, **kwargs):
    global count
    count += 1
    if count == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, name, deadly)
from align.cli import main
main()
"""


def run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; the output is shown only if it failed."""
    done = subprocess.run(list(command), env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done


def timeless(folder: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl without what the clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/") and k != "images_per_second"} for row in rows]


def tensors(folder: Path) -> dict[str, bytes]:
    """Every tensor file of every checkpoint."""
    files = sorted((folder / "checkpoints").glob("step_*/*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def gain(output: Path) -> None:
    """The demo over three seeds."""
    from align.report.gains import ALL, gains
    from align.report.read import read_run
    from align.report.summary import summarise

    found = []
    for seed in (0, 1, 2):
        started = time.monotonic()
        run([*ALIGN, "demo", "--seed", str(seed), f"output.directory={output}", f"output.name=seed{seed}"])
        seconds = time.monotonic() - started
        record = read_run(output / f"seed{seed}")
        first, last = record.evaluations[0], record.evaluations[-1]
        strict = next(g for g in gains(first, last) if g.reward == "shapes_strict" and g.group == ALL)
        found.append(strict.difference.mean)
        gained = strict.difference
        print(
            f"seed {seed}: {strict.before.mean:.1%} -> {strict.after.mean:.1%}, gain {100 * gained.mean:+.1f} points "
            f"[{100 * gained.low:+.1f}, {100 * gained.high:+.1f}], {strict.before.n} pairs, {seconds:.0f} s, "
            f"outside model, decode and reward: {summarise(record).overhead:.1%}",
            flush=True,
        )
    print(f"mean gain {100 * statistics.mean(found):+.1f} points")


def resume(output: Path) -> None:
    """SIGKILL at three moments."""
    base = ["train", "demo/awm_tiny", *SHORT, f"output.directory={output}"]
    run([*ALIGN, *base, "output.name=undisturbed"])
    expected = timeless(output / "undisturbed"), tensors(output / "undisturbed")
    # Calls of the network, of backward, of the checkpoint writer after which the process dies.
    calls = {"rollout": "150", "update": "4", "checkpoint": "8"}
    for moment, (module, path, kind) in MOMENTS.items():
        name = kind
        killed = run([sys.executable, "-c", CHILD, module, path, calls[kind], *base, f"output.name={name}"])
        if killed.returncode != -signal.SIGKILL:
            sys.exit(f"the run was not killed {moment}: it ended with {killed.returncode}")
        done = len(timeless(output / name)) if (output / name / "metrics.jsonl").exists() else 0
        run([*ALIGN, "train", str(output / name)])
        same = (timeless(output / name) == expected[0], tensors(output / name) == expected[1])
        print(
            f"killed {moment} (exit {killed.returncode}, {done} lines of metrics), resumed: "
            f"metrics equal {same[0]}, all {len(expected[1])} tensor files equal bit for bit {same[1]}",
            flush=True,
        )


def processes(output: Path) -> None:
    """One process and two with the same configuration."""
    import torch
    from safetensors.torch import load_file

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    config = Path(__file__).parents[1] / "configs" / "accelerate" / "two_cpu_processes.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(config)]
    launch += ["--main_process_port", port]
    # Batches of one shape on both sides, so that only the order of summation differs.
    base = [
        "train",
        "demo/awm_tiny",
        *SHORT,
        "rollout.batch_size=16",
        "output.images_every=1",
        f"output.directory={output}",
    ]
    run([*ALIGN, *base, "output.name=one"], OMP_NUM_THREADS="1")
    run([*launch, "-m", "align", *base, "output.name=two"], OMP_NUM_THREADS="1")
    rows = [
        [json.loads(line) for path in sorted((output / name / "samples").glob("*.jsonl")) for line in path.open()]
        for name in ("one", "two")
    ]
    rewards, advantages = (
        max(abs(get(a) - get(b)) for a, b in zip(*rows, strict=True))
        for get in (lambda row: row["score"], lambda row: row["advantage"])
    )
    weights = [
        load_file(output / name / "checkpoints" / "step_000005" / "weights.safetensors") for name in ("one", "two")
    ]
    largest = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    moved = max(float(t.abs().max()) for name, t in weights[0].items() if "lora_B" in name)
    print(
        f"{len(rows[0])} samples: largest difference of rewards {rewards:g}, of advantages {advantages:g}, of weights "
        f"after the last step {largest:.2g} (lora_B has moved by up to {moved:.2g}); torch {torch.__version__}"
    )


def start(output: Path) -> None:
    """CPU seconds (user + system) of `align --help`, median of five."""
    seconds = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run([*ALIGN, "--help"])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    middle, low, high = statistics.median(seconds[1:]), min(seconds[1:]), max(seconds[1:])
    print(f"align --help: {middle:.2f} s of CPU time (median of 5; {low:.2f} to {high:.2f})")


def main() -> None:
    """Pick a figure."""
    figures: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (gain, resume, processes, start)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=figures)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or Path(tempfile.mkdtemp(prefix="first_light_"))
    print(f"runs in {output}", flush=True)
    figures[options.figure](output)


if __name__ == "__main__":
    main()
