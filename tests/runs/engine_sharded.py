"""Runs of the toy method, and of real model classes, for tests/runs/test_engine_sharded.py.

    python engine_sharded.py '{"directory": "/somewhere", "resume": []}'

One launch does everything that needs its processes: starting them is what takes the time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import engine_toy
from safetensors.torch import save_file

from align.engine.loop import train
from align.engine.sharding import is_sharded

SCENARIOS = {
    "deep": {"adapter": "deep", "updates_per_rollout": 1, "micro_batch_size": 1, "max_grad_norm": 0.5},
    "lora": {"adapter": "lora", "updates_per_rollout": 2, "micro_batch_size": 2, "max_grad_norm": 0.05},
}


def settings(directory: str | Path, scenario: str, **more: object) -> engine_toy.ToySettings:
    """A run that uses everything: reference, lagged policy, moving average, clipping, uneven rows."""
    usual = {"steps": 4, "pull": True, "uneven": True, "global_noise": False, "images_every": 0}
    chosen = {**usual, **SCENARIOS[scenario], **more}
    return engine_toy.ToySettings(directory=f"{directory}/{scenario}", **chosen)  # type: ignore[arg-type]


def run_scenario(directory: str | Path, scenario: str, **more: object) -> None:
    """Train, and export the averaged weights as a branch does."""
    run, toy = engine_toy.start(settings(directory, scenario, **more))
    spread = [is_sharded(weight) for weight in (*run.policy.state_dict().values(), *run.ema.weights.values())]
    assert set(spread) == {os.environ.get("ACCELERATE_USE_FSDP") == "true"}
    train(run, toy)
    with run.averaged_weights(), run.policy.assembled(keep=run.processes.is_main) as module:
        if run.processes.is_main:
            assert type(module) is engine_toy.Deep
            save_file({name: w.contiguous() for name, w in module.state_dict().items()}, run.folder.path / "export.st")
            assert {w.shape for w in run.policy.state_dict().values()} == {w.shape for w in run.ema.weights.values()}
    run.processes.barrier()


def main(text: str) -> None:
    """Fresh runs, then the ones to resume."""
    asked = json.loads(text)
    for scenario in SCENARIOS:
        run_scenario(asked["directory"], scenario)
    for directory in asked["resume"]:
        for scenario in SCENARIOS:
            run_scenario(directory, scenario, resume=True)
    print("all scenarios ran", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
