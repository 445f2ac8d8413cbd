"""Two processes train the adapter that one trains; each encodes half of the prompts.

Tolerance: float32 sums in another order, amplified a little by AdamW steps of 0.01.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import align

SCRIPT = Path(__file__).with_name("adapter_runs.py")
ROOT = Path(align.__file__).parents[1]


@pytest.fixture
def script():
    """The script as a module; afterwards Accelerate forgets what it was told."""
    from accelerate.state import AcceleratorState, GradientState

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield importlib.import_module("adapter_runs")
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def losses(folder: Path) -> list[tuple[float, ...]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        tuple(line.get(name, 0.0) for name in ("loss", "grad_norm", "eval/kl", "eval/constant_kl")) for line in lines
    ]


def test_two_processes_equal_one(script, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
        script.write_rows(folder / "rows.jsonl")
    one = script.run(alone)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    config = ROOT / "configs" / "accelerate" / "two_cpu_processes.yaml"
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(config),
        str(SCRIPT),
        str(together),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("the adapter is trained") == 2
    two = together / "runs" / "run"
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-5)
    vectors = "vectors/word-counts.safetensors"
    assert sorted(load_file(one / vectors)["vectors"].tolist()) == sorted(load_file(two / vectors)["vectors"].tolist())
    adapters = [load_file(run / "adapter" / "adapter.safetensors") for run in (one, two)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weight in adapters[0].items():
        assert torch.allclose(adapters[1][name], weight, rtol=1e-3, atol=1e-4), name
