"""Whole runs on pairs: two processes (DDP and FSDP2) give what one gives, a killed run goes on bit for bit.

Tolerances between numbers of processes: float32 sums in another order, amplified a little by AdamW steps of 0.01.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import align

from ..preference.tokenizers import model_folder

SCRIPT = Path(__file__).with_name("preference_runs.py")
ROOT = Path(align.__file__).parents[1]
CONFIGS = ROOT / "configs" / "accelerate"
SCENARIOS = ("dpo", "dpo_full", "dpo_copy", "simpo", "dckd", "adpa", "sft")
STEPS = 4
TIMES = ("time/", "pairs_per_second", "answers_per_second")


def start(directory: Path, *launcher: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(SCRIPT), json.dumps({"directory": str(directory), **settings})]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def script():
    """The script as a module; afterwards Accelerate forgets what it was told."""
    from accelerate.state import AcceleratorState, GradientState

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield importlib.import_module("preference_runs")
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def material(tmp_path_factory, script) -> Path:
    """A folder with a model and pairs: 20 to train on, so that a step spans two epochs, and 5 held out."""
    root = tmp_path_factory.mktemp("pairs")
    model_folder(root / "model")
    script.write_pairs(root / "train.jsonl", 20, seed=1)
    script.write_pairs(root / "heldout.jsonl", 5, seed=2)
    model_folder(root / "teacher", seed=1)
    script.write_answers(root / "answers.jsonl", root / "train.jsonl", seed=3)
    return root


def copy_of(material: Path, target: Path) -> Path:
    """The material in another folder; runs stay behind."""
    return Path(shutil.copytree(material, target, ignore=shutil.ignore_patterns("runs")))


@pytest.fixture(scope="module")
def one(script, material) -> Path:
    """Undisturbed runs of one process, in this one."""
    from accelerate.state import AcceleratorState

    for name in (*SCENARIOS, "simpo_bf16"):
        script.run(material, name)
        AcceleratorState._reset_state(True)
    return material / "runs"


def lines(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what the clock says."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if not key.startswith(TIMES)} for record in records]


@pytest.mark.parametrize("launch", ["two_cpu_processes", "fsdp2_two_cpu_processes"])
def test_two_processes_equal_one(one, material, tmp_path, launch):
    """Metrics of every step, held-out records and weights of every scenario, in one launch."""
    directory = copy_of(material, tmp_path / "two")
    launcher = ("-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{launch}.yaml"))
    done = start(directory, *launcher, scenarios=SCENARIOS)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.count("all scenarios ran") == 2
    for name in SCENARIOS:
        alone, spread = one / name, directory / "runs" / name
        for ours, theirs in zip(lines(alone), lines(spread), strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                assert theirs[key] == pytest.approx(value, rel=5e-3, abs=2e-3), (name, ours["step"], key)
        checkpoint = Path("checkpoints") / f"step_{STEPS:06d}" / "weights.safetensors"
        weights, found = load_file(alone / checkpoint), load_file(spread / checkpoint)
        assert weights.keys() == found.keys()
        for key, weight in weights.items():
            assert torch.allclose(found[key], weight, rtol=1e-3, atol=2e-3), (name, key)
        rows = [json.loads((run / "evaluations/step_000004.json").read_text())["rows"] for run in (alone, spread)]
        assert [row["prompt"] for row in rows[0]] == [row["prompt"] for row in rows[1]]
        assert [row.get("completion") for row in rows[0]] == [row.get("completion") for row in rows[1]]


@pytest.mark.parametrize("name", ["dpo", "dpo_full"])
def test_killed_and_resumed_equals_undisturbed(one, material, tmp_path, name):
    """Killed in the third step, by the signal that cannot be caught: the same lines and weights, bit for bit.

    With all weights trained the reference must still be that of the model from before training.
    """
    directory = copy_of(material, tmp_path / "killed")
    killed = start(directory, scenarios=[name], kill=3)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line["step"] for line in lines(directory / "runs" / name)] == [0, 1, 2]
    resumed = start(directory, scenarios=[name], resume=True)
    assert resumed.returncode == 0, resumed.stderr
    assert lines(directory / "runs" / name) == lines(one / name)
    path = Path("checkpoints") / f"step_{STEPS:06d}" / "weights.safetensors"
    ours, theirs = load_file(directory / "runs" / name / path), load_file(one / name / path)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_run_learns_and_leaves_what_a_person_wants(one):
    """DPO with adapters: margins grow on training and on held-out pairs; weights, records and page are there."""
    records = lines(one / "dpo")
    assert lines(one / "dpo_full")[1]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert records[-1]["rewards/margins"] > 0.02
    assert records[-1]["eval/rewards/margins"] > 0.02
    assert records[-1]["eval/likelihood_margin/mean"] > records[0]["eval/likelihood_margin/mean"]
    assert (one / "dpo" / "weights" / "adapter_model.safetensors").is_file()
    assert (one / "dpo_full" / "weights" / "model.safetensors").is_file()
    record = json.loads((one / "dpo" / "evaluations" / "step_000004.json").read_text())
    answers = [row for row in record["rows"] if "completion" in row]
    assert len(record["rows"]) == 5 + 3
    assert len(answers) == 3
    assert record["figures"]["ranking/alignment_gap"] is not None
    page = (one / "dpo" / "report.html").read_text(encoding="utf-8")
    assert "Answers before and after" in page


def test_dpo_starts_at_its_known_loss(one):
    """IPO: 1 / (4 beta^2) = 25 for beta 0.1; DPO with APO: log 2 + 0.5, and the supervised term."""
    assert lines(one / "dpo_copy")[1]["loss"] == pytest.approx(25.0, rel=1e-4)
    first = lines(one / "dpo")[1]
    assert first["reference_deviation"] < 1e-5
    assert lines(one / "dpo_full")[1]["reference_deviation"] < 1e-5


def test_stored_references_are_in_the_run_folder(one):
    """24 pairs are read of 20: more than an epoch, so numbers are stored; the copy is asked anew in each step."""
    stored = {name: len(list((one / name / "reference").glob("*.safetensors"))) for name in SCENARIOS}
    heldout = dict.fromkeys(SCENARIOS, 1)  # held-out pairs are always stored
    assert stored == {**heldout, "dpo": 2, "dpo_full": 2}


def test_teachers_are_read_from_records(one):
    """Both methods go on from records that the same commands have written; the divergence from the teacher falls."""
    for name in ("dckd", "adpa"):
        assert list((one / f"records_{name}").glob("part_*.safetensors"))
    records = lines(one / "dckd")
    assert records[-1]["teacher/kl_chosen"] < records[1]["teacher/kl_chosen"]
    assert lines(one / "adpa")[1]["teacher/advantage"] != 0


def test_bf16_stays_finite(one):
    for record in lines(one / "simpo_bf16"):
        assert all(value is not None and math.isfinite(value) for value in record.values()), record


def test_evaluation_of_a_run_pairs_it_with_its_base(one, script):
    """`align evaluate RUN` gives the records that the run itself wrote before its first and after its last step."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    config = script.scenario(one.parent, "dpo")
    folder = script.commands.evaluate(config, checkpoint=one / "dpo")
    AcceleratorState._reset_state(True)
    for step in (0, STEPS):
        ours, theirs = (
            json.loads((place / "evaluations" / f"step_{step:06d}.json").read_text()) for place in (folder, one / "dpo")
        )
        for row, expected in zip(ours["rows"], theirs["rows"], strict=True):
            assert row["prompt"] == expected["prompt"]
            assert row["rewards"] == pytest.approx(expected["rewards"], abs=1e-4)
            assert row.get("completion") == expected.get("completion")
