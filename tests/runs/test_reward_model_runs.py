"""Whole runs of reward models: they learn a separable toy, transformers loads them, two processes give what one gives.

Tolerances between numbers of processes: float32 sums in another order, amplified a little by AdamW.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import align
from align.config.shared import RewardConfig
from align.rewards.find import RewardError
from align.rewards.scorer import Scorer
from align.types import Samples

from ..preference.tokenizers import model_folder

SCRIPT = Path(__file__).with_name("reward_model_runs.py")
ROOT = Path(align.__file__).parents[1]
SCENARIOS = ("bt", "regression", "ridge")
TIMES = ("time/", "pairs_per_second", "answers_per_second")
PROMPTS = ["the 3", "in", "the"]
ANSWERS = ["the cat the cat", "ok in ok in", "cat cat cat ok"]


@pytest.fixture(scope="module")
def script():
    """The script as a module; afterwards Accelerate forgets what it was told."""
    from accelerate.state import AcceleratorState, GradientState

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield importlib.import_module("reward_model_runs")
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def material(tmp_path_factory, script) -> Path:
    """A model with pairs and ratings."""
    root = tmp_path_factory.mktemp("rewards")
    model_folder(root / "model")
    script.write_pairs(root / "pairs.jsonl", 24, seed=1)
    script.write_pairs(root / "heldout_pairs.jsonl", 9, seed=2)
    script.write_ratings(root / "ratings.jsonl", 40, seed=1)
    script.write_ratings(root / "heldout_ratings.jsonl", 16, seed=2)
    return root


@pytest.fixture(scope="module")
def runs(script, material) -> Path:
    """Every scenario, run by one process."""
    from accelerate.state import AcceleratorState

    for name in SCENARIOS:
        script.commands.train(script.scenario(material, name))
        AcceleratorState._reset_state(True)
    return material / "runs"


def lines(folder: Path) -> list[dict[str, float]]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in record.items() if not k.startswith(("time/", "pairs_per", "answers_per"))}
        for record in records
    ]


def report(folder: Path) -> dict:
    return json.loads((folder / "reward_report.json").read_text())


def texts() -> Samples:
    index = torch.arange(len(PROMPTS))
    return Samples(index=index, group_ids=index, prompts=PROMPTS, completions=ANSWERS)


def scored(path: Path, **options) -> list[float]:
    """Scores of the reward by name."""
    config = RewardConfig(function="reward_model", options={"path": str(path), **options})
    return Scorer([config]).score(texts()).values[:, 0].tolist()


def stock(path: Path) -> torch.Tensor:
    """Scores as a user of transformers gets them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(path / "weights").eval()
    tokenizer = AutoTokenizer.from_pretrained(path / "weights")
    turns = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    whole = [tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns]
    rows = tokenizer(whole, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits


def test_bradley_terry_learns_a_separable_toy(runs):
    """Held-out pairs, all of them after 42 training pairs; the first loss is that of a random head."""
    found = report(runs / "bt")
    assert found["figures"]["agreement"] == 1.0
    assert found["figures"]["rewards/margins"] > 1.0
    assert found["rows"] == sum(row["count"] for row in found["tables"]["reliability"]) == 9
    records = lines(runs / "bt")
    assert records[-1]["eval/agreement"] == 1.0
    assert records[0]["eval/loss"] > 5 * records[-1]["eval/loss"]
    assert "## Calibration of pairs" in (runs / "bt" / "reward_report.md").read_text()


def test_regression_learns_and_tells_each_attribute(runs):
    records = lines(runs / "regression")
    assert records[-1]["eval/loss"] < 0.3 * records[0]["eval/loss"]
    assert {"mse/cats", "mse/oks", "unexplained_variance"} <= records[1].keys()
    figures = report(runs / "regression")["figures"]
    assert figures["agreement/cats"] > 0.8
    assert figures["spearman/cats"] > 0.6
    assert {row["label"] for row in report(runs / "regression")["tables"]["levels"]["oks"]} == {1.0, 2.0, 3.0}


def test_ridge_fits_in_one_go(runs):
    """Counts of tokens are nearly linear in a random network's last state."""
    figures = report(runs / "ridge")["figures"]
    assert figures["agreement"] > 0.9
    assert figures["unexplained_variance"] < 0.3
    assert 0 <= figures["gate/accuracy"] <= 1
    assert (runs / "ridge" / "report.html").is_file()
    assert len(lines(runs / "ridge")) == 1


def test_transformers_loads_what_was_trained_and_scores_alike(runs):
    """With its own padding, pooling and head; the reward by name reads the same files by our pass."""
    assert scored(runs / "bt") == pytest.approx(stock(runs / "bt")[:, 0].tolist(), abs=1e-5)
    for name in ("regression", "ridge"):
        logits = stock(runs / name)
        for place, attribute in enumerate(("cats", "oks")):
            raw = scored(runs / name, attribute=attribute, units="raw")
            assert raw == pytest.approx(logits[:, place].tolist(), abs=1e-5)
    config = json.loads((runs / "regression" / "weights" / "config.json").read_text())
    assert config["id2label"] == {"0": "cats", "1": "oks"}
    assert config["problem_type"] == "regression"
    assert config["architectures"] == ["LlamaForSequenceClassification"]


def test_label_units_and_the_gate(runs):
    """oks goes from 1 to 3 in 3 levels: label = 1 + 3 s - 0.5."""
    raw = scored(runs / "ridge", attribute="oks", units="raw")
    assert scored(runs / "ridge", attribute="oks") == pytest.approx([0.5 + 3 * s for s in raw], abs=1e-5)
    gated = scored(runs / "ridge")
    assert gated == scored(runs / "ridge", attribute="gated")
    assert all(map(math.isfinite, gated))


def test_a_batch_and_a_single_answer_score_alike(runs):
    alone = [
        Scorer([RewardConfig(function="reward_model", options={"path": str(runs / "bt"), "batch_size": 1})]).score(
            texts().select([row])
        )
        for row in range(3)
    ]
    assert [table.values.item() for table in alone] == pytest.approx(scored(runs / "bt"), abs=1e-5)


def test_several_attributes_share_one_network_and_one_pass(runs, monkeypatch):
    from preference.reward_models import judge

    passes = []
    whole = judge.hidden_states
    monkeypatch.setattr(judge, "hidden_states", lambda *given: passes.append(1) or whole(*given))
    options = [{"path": str(runs / "ridge"), "attribute": name} for name in ("cats", "oks", "gated")]
    entries = [RewardConfig(function="reward_model", name=one["attribute"], options=one) for one in options]
    assert Scorer(entries).score(texts()).values.isfinite().all()
    assert len(passes) == 1


def test_an_answer_that_cannot_be_used_is_unscored_and_the_others_are_not(runs):
    """An empty plain-text answer has no token of its own where nothing ends it; a chat turn always has its end."""
    samples = replace(texts(), completions=["", *ANSWERS[1:]])
    table = Scorer([RewardConfig(function="reward_model", options={"path": str(runs / "bt")})]).score(samples)
    assert table.values[1:, 0].tolist() == pytest.approx(scored(runs / "bt")[1:], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has 2 heads \\(cats, oks\\)"),
        ({"attribute": "cat"}, "names no head of the reward model: 'cat'. Did you mean `cats`"),
        ({"attribute": "cats", "units": "labels"}, "Did you mean `label`"),
        ({"attribute": "cats", "batch_size": 0}, "expects a whole number from 1"),
    ],
)
def test_options_that_cannot_be_used(runs, options, message):
    with pytest.raises(RewardError, match=message):
        Scorer([RewardConfig(function="reward_model", options={"path": str(runs / "regression"), **options})])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RewardError, match=r"found no config\.json there or in weights/"):
        Scorer([RewardConfig(function="reward_model", options={"path": str(tmp_path)})])


def test_two_processes_equal_one(runs, material, tmp_path):
    """Metrics of every step and the weights that were saved; labels fall unevenly over processes and micro-batches."""
    directory = Path(shutil.copytree(material, tmp_path / "two", ignore=shutil.ignore_patterns("runs")))
    config = ROOT / "configs" / "accelerate" / "two_cpu_processes.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    settings = json.dumps({"directory": str(directory), "scenarios": SCENARIOS})
    done = subprocess.run(
        [*command, settings], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    for name in SCENARIOS:
        alone, spread = runs / name, directory / "runs" / name
        for ours, theirs in zip(lines(alone), lines(spread), strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                assert theirs[key] == pytest.approx(value, rel=5e-3, abs=2e-3), (name, ours["step"], key)
        weights, found = (load_file(run / "weights" / "model.safetensors") for run in (alone, spread))
        for key, weight in weights.items():
            assert torch.allclose(found[key], weight, rtol=1e-3, atol=2e-3), (name, key)


def test_stopped_and_resumed_equals_undisturbed(runs, script, material):
    """Its last checkpoint and its weights taken away, the run goes on from step 4 to the same numbers, bit for bit."""
    from accelerate.state import AcceleratorState

    target = material / "runs" / "again"
    shutil.copytree(runs / "bt", target)
    shutil.rmtree(target / "weights")
    shutil.rmtree(target / "checkpoints" / "step_000006")
    AcceleratorState._reset_state(True)
    script.commands.train(script.scenario(material, "bt"), resume=target)
    ours, theirs = (load_file(run / "weights" / "model.safetensors") for run in (runs / "bt", target))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lines(runs / "bt") == lines(target)


def test_a_reward_model_goes_on_with_its_own_head(runs, script, material):
    """Nothing is lost on the way through the folder: before its first step it scores as it did."""
    from preference.reward_models.files import load_reward_model

    config = replace(script.scenario(material, "bt").model, path=str(runs / "bt" / "weights"), lora=None)
    model = load_reward_model(config, ("reward",), seed=0)
    saved = load_file(runs / "bt" / "weights" / "model.safetensors")
    assert torch.equal(model.network.score.weight, saved["score.weight"])
    other = load_reward_model(config, ("other",), seed=None)
    assert other.network.score.weight.abs().sum() == 0
