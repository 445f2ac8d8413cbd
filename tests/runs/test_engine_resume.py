"""A run that is killed at any moment and resumed gives the numbers and weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import align

TOY = Path(__file__).with_name("engine_toy.py")
ROOT = Path(align.__file__).parents[1]


def run_toy(directory: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    text = json.dumps({"directory": str(directory), **settings})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-W", "error", str(TOY), text]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def numbers(directory: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl without what the clock says."""
    lines = (directory / "toy" / "metrics.jsonl").read_text().splitlines()
    timeless = []
    for line in lines:
        record = json.loads(line)
        timeless.append({k: v for k, v in record.items() if not k.startswith("time/") and k != "images_per_second"})
    return timeless


def files(directory: Path, *patterns: str) -> dict[str, bytes]:
    root = directory / "toy"
    return {str(p.relative_to(root)): p.read_bytes() for pattern in patterns for p in root.glob(pattern) if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    done = run_toy(directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("collect", 1),
        ("collect", 4),
        ("update", 5),
        ("while the files are written", 4),
        ("before the rename", 4),
        ("after the rename", 4),
    ],
)
def test_killed_and_resumed_equals_undisturbed(undisturbed: Path, tmp_path: Path, moment: str, step: int):
    killed = run_toy(tmp_path, kill=moment, kill_step=step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = numbers(tmp_path)
    assert before[-1]["step"] < 6, "the run was not killed in the middle"

    resumed = run_toy(tmp_path, resume=True)
    assert resumed.returncode == 0, resumed.stderr
    assert numbers(tmp_path) == numbers(undisturbed)
    kinds = ("checkpoints/*/*", "samples/*", "rewards/*", "images/*/*")
    ours, theirs = files(tmp_path, *kinds), files(undisturbed, *kinds)
    assert ours.keys() == theirs.keys()
    assert {f"checkpoints/step_000006/{part}.safetensors" for part in ("weights", "optimizer", "ema")} <= ours.keys()
    assert {f"rewards/step_00000{step}.safetensors" for step in range(1, 7)} <= ours.keys()
    for name, content in theirs.items():
        if not name.endswith("manifest.json"):  # it holds the times of the step
            assert ours[name] == content, name


def test_the_run_moves_and_draws_from_the_global_generators(undisturbed: Path, tmp_path: Path):
    """Without these two the comparison above could not fail."""
    lines = numbers(undisturbed)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert len({line["loss"] for line in lines[1:]}) == 6
    assert lines[0]["eval/tone/mean"] != lines[6]["eval/tone/mean"]
    assert run_toy(tmp_path, global_noise=False).returncode == 0
    assert numbers(tmp_path)[1]["loss"] != lines[1]["loss"]


def test_a_second_process_in_the_same_folder_is_refused(undisturbed: Path):
    again = run_toy(undisturbed)
    assert again.returncode != 0
    assert "is there already and not empty" in again.stderr
    assert "align train" in again.stderr
