"""Rewards of `evaluation.rewards` and metrics of weight 0 are looked at and never trained on: not a weight differs."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from align.config.pipeline import Grpo, PipelineConfig
from align.config.shared import RewardConfig
from diffusion import commands
from diffusion.config import EvaluationConfig

from ..diffusion.models.config import miniature_run

TRAINED = (RewardConfig(function="brightness", weight=2.0), RewardConfig(function="contrast", weight=1.0))
LOOKED_AT = RewardConfig(function="jpeg_size", name="looked_at", weight=100.0)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run(folder, rewards, evaluated=()):
    """Trained weights, advantages of all samples, names of the metrics."""
    evaluation = EvaluationConfig(seeds=1, num_inference_steps=2, strip_prompts=0, every=1, rewards=tuple(evaluated))
    config = miniature_run(
        folder, rewards=rewards, evaluation=evaluation, pipeline=PipelineConfig(base=Grpo(scale="group"))
    )
    place = commands.train(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    rows = [
        json.loads(line)
        for step in (1, 2)
        for line in (place / "samples" / f"step_{step:06d}.jsonl").read_text().splitlines()
    ]
    metrics = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(place / "checkpoints" / "step_000002" / "weights.safetensors")
    return weights, [row["advantage"] for row in rows], {name for row in metrics for name in row}


def same(first, second):
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(tensor, second[0][name]) for name, tensor in first[0].items())


def test_what_is_only_looked_at_changes_nothing(tmp_path):
    plain = run(tmp_path / "plain", TRAINED)
    assert len({*plain[1]}) > 2  # there is something to learn
    evaluated = run(tmp_path / "evaluated", TRAINED, [LOOKED_AT])
    same(plain, evaluated)
    assert "eval/looked_at/mean" in evaluated[2]
    assert not any(name.startswith("rewards/looked_at") for name in evaluated[2])
    metric = run(tmp_path / "metric", (*TRAINED, RewardConfig(function="jpeg_size", weight=0.0)))
    same(plain, metric)
    assert "rewards/jpeg_size/mean" in metric[2]


def test_the_weight_of_a_trained_reward_does_change_something(tmp_path):
    """So that the test above could fail."""
    first = run(tmp_path / "first", TRAINED)
    second = run(tmp_path / "second", (TRAINED[0], RewardConfig(function="contrast", weight=5.0)))
    assert first[1] != second[1]
