"""FSDP2 and DDP with two processes on the CPU give what one process gives; checkpoints pass between them.

Tolerances: float32 sums in another order, amplified a little by four AdamW steps of 0.01. All comparisons rest on two
launches, because starting processes is what takes the time.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import align

SCRIPT = Path(__file__).with_name("engine_sharded.py")
ROOT = Path(align.__file__).parents[1]
CONFIGS = ROOT / "configs" / "accelerate"
SCENARIOS = ("deep", "lora")
HALF_WAY, LAST = 2, 4


def launch(directory: Path, config: str, resume: Sequence[Path] = (), *, networks: bool = False) -> None:
    """Run the script under one of the shipped launch configurations."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{config}.yaml")]
    text = json.dumps({"directory": str(directory), "resume": [str(path) for path in resume], "networks": networks})
    command = [sys.executable, *launcher, str(SCRIPT), text]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all scenarios ran") == 2


def here(directory: Path, **more: object) -> None:
    """The same in this process."""
    from accelerate.state import AcceleratorState, GradientState

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        script = importlib.import_module("engine_sharded")
        for scenario in SCENARIOS:
            script.run_scenario(directory, scenario, **more)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def cut_back(source: Path, target: Path) -> Path:
    """A copy of runs as if they had been killed half-way."""
    shutil.copytree(source, target)
    for scenario in SCENARIOS:
        shutil.rmtree(target / scenario / f"toy/checkpoints/step_{LAST:06d}")
        assert (target / scenario / f"toy/checkpoints/step_{HALF_WAY:06d}").is_dir()
    return target


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one/, fsdp/ and ddp/ hold undisturbed runs; one_to_fsdp/ and fsdp_to_one/ runs that changed in the middle."""
    root = tmp_path_factory.mktemp("sharded")
    here(root / "one")
    to_fsdp = cut_back(root / "one", root / "one_to_fsdp")
    launch(root / "fsdp", "fsdp2_two_cpu_processes", [to_fsdp], networks=True)
    here(cut_back(root / "fsdp", root / "fsdp_to_one"), resume=True)
    launch(root / "ddp", "two_cpu_processes")
    return root


def numbers(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what the clock says."""
    records = [json.loads(line) for line in (folder / "toy/metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in record.items() if not name.startswith("time/") and name != "images_per_second"}
        for record in records
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("other", ["fsdp", "ddp", "one_to_fsdp", "fsdp_to_one"])
def test_equals_one_process(folders: Path, scenario: str, other: str):
    """Losses, gradient norms, evaluations of the averaged weights, and everything that a checkpoint holds."""
    ours, theirs = folders / "one" / scenario, folders / other / scenario
    one, two = numbers(ours), numbers(theirs)
    assert [line["step"] for line in one] == list(range(LAST + 1))
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for part in ("weights", "ema", "optimizer", "algorithm"):
        place = f"toy/checkpoints/step_{LAST:06d}/{part}.safetensors"
        expected, found = load_file(ours / place), load_file(theirs / place)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5, msg=f"{part} {name}")
    expected, found = load_file(ours / "toy/export.st"), load_file(theirs / "toy/export.st")
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_comparison_could_fail(folders: Path, scenario: str):
    """Gradients were clipped, the weights moved by far more than the tolerance, and both pulls acted."""
    lines = numbers(folders / "one" / scenario)[1:]
    limit = {"deep": 0.5, "lora": 0.05}[scenario]
    assert any(line["grad_norm"] > limit for line in lines)
    assert lines[-1]["from_base"] > 1e-3
    assert lines[-1]["from_lagged"] > 1e-5
    folder = folders / "one" / scenario / "toy/checkpoints"
    first, last = (load_file(folder / f"step_{step:06d}/weights.safetensors") for step in (HALF_WAY, LAST))
    assert max((last[name] - first[name]).abs().max().item() for name in last) > 1e-3
