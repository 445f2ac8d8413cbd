"""Two processes with the same rows give what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import align

TOY = Path(__file__).with_name("engine_toy.py")
TOOLS = Path(__file__).with_name("engine_collectives.py")
ROOT = Path(align.__file__).parents[1]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "toy" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("updates", [1, 2])
def test_two_processes_equal_one(tmp_path: Path, updates: int):
    """12 rows: one process takes 8 + 4 (with two updates 4 + 2), two take 5 + 1 each (3): uneven micro-batches."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {"global_noise": False, "updates_per_rollout": updates}
    run_python(str(TOY), json.dumps({"directory": str(one), "micro_batch_size": 8 // updates, **settings}))
    run_python(*TWO, str(TOY), json.dumps({"directory": str(two), "micro_batch_size": 5, **settings}))

    for ours, theirs in zip(lines(one), lines(two), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"images_per_second"}:
            if not name.startswith("time/"):
                # float32 sums in another order; six AdamW steps of 0.01 amplify it a little
                assert theirs[name] == pytest.approx(ours[name], rel=2e-4, abs=2e-5), name
    for part in ("weights", "ema"):
        ours, theirs = (load_file(d / f"toy/checkpoints/step_000006/{part}.safetensors") for d in (one, two))
        for name in ours:
            torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-4)
    tables = [(d / "toy/samples/step_000002.jsonl").read_text().splitlines() for d in (one, two)]
    assert [json.loads(row)["index"] for row in tables[0]] == list(range(12))
    assert [json.loads(row)["image"] for row in tables[1]] == [json.loads(row)["image"] for row in tables[0]]
    assert len(list((two / "toy/checkpoints/step_000006").glob("random_*.safetensors"))) == 2


def test_a_run_of_two_processes_resumes_with_one(tmp_path: Path):
    settings = {"directory": str(tmp_path), "global_noise": False}
    run_python(*TWO, str(TOY), json.dumps({**settings, "steps": 4}))
    run_python(str(TOY), json.dumps({**settings, "steps": 6, "resume": True}))
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4, 5, 6]


def test_collectives():
    """The script checks every operation on both processes and prints once per process."""
    assert run_python(*TWO, str(TOOLS)).stdout.count("all collectives agree") == 2
