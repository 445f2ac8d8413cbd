"""Whole runs of reward models on a miniature, for tests/runs/test_reward_model_runs.py.

python reward_model_runs.py '{"directory": "/somewhere", "scenarios": ["bt", "regression"]}'
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from align.config.shared import LoraConfig, OutputConfig
from align.rewards.scales import LabelScale
from preference.config import CausalLm, TextOptimizerConfig
from preference.reward_models import commands
from preference.reward_models.config import (
    GateConfig,
    RatingsConfig,
    RewardBtConfig,
    RewardCheckpointConfig,
    RewardEvaluationConfig,
    RewardModelRun,
    RewardPairsConfig,
    RewardRegressionConfig,
    RewardRidgeConfig,
    RewardTrainingConfig,
)

LENGTHS = {"max_length": 48, "max_prompt_length": 32}


def write_pairs(path: Path, rows: int, seed: int) -> None:
    """Chosen answers speak of cats."""
    draw = random.Random(seed)
    lines = [
        {
            "prompt": [{"role": "user", "content": f"the {number}"}],
            "chosen": [{"role": "assistant", "content": "the cat " * draw.randint(1, 3)}],
            "rejected": [{"role": "assistant", "content": "ok in " * draw.randint(1, 3)}],
            "sure": draw.randint(0, 2) / 4,
        }
        for number in range(rows)
    ]
    write(path, lines)


def write_ratings(path: Path, rows: int, seed: int) -> None:
    """Two answers a prompt; `cats` counts cats, `oks` counts oks and is missing in two of five rows."""
    draw = random.Random(seed)
    lines = []
    for number in range(rows):
        cats, oks = draw.randint(0, 4), draw.randint(1, 3)
        rated = {"cats": cats, "oks": oks if draw.random() < 0.6 else None}
        lines.append({"prompt": f"the {number // 2}", "response": "cat " * cats + "ok " * oks, **rated})
    write(path, lines)


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def scenario(directory: Path, name: str) -> RewardModelRun:
    """Settings of a scenario; updates do not divide evenly over micro-batches or processes."""
    pairs = RewardPairsConfig(
        train=str(directory / "pairs.jsonl"),
        heldout=str(directory / "heldout_pairs.jsonl"),
        pairs_per_step=7,
        **LENGTHS,
    )
    ratings = RatingsConfig(
        train=str(directory / "ratings.jsonl"),
        heldout=str(directory / "heldout_ratings.jsonl"),
        attributes={"cats": LabelScale(), "oks": LabelScale(lowest=1.0, highest=3.0, levels=3)},
        answers_per_step=14,
        plain_as_chat=True,
        **LENGTHS,
    )
    base = RewardModelRun(
        seed=3,
        model=CausalLm(path=str(directory / "model"), lora=LoraConfig(rank=4, alpha=8.0, targets="all_linear")),
        data=pairs,
        optimizer=TextOptimizerConfig(learning_rate=1e-2),
        training=RewardTrainingConfig(steps=6, micro_batch_size=3),
        evaluation=RewardEvaluationConfig(batch_size=4),
        checkpoint=RewardCheckpointConfig(every=2, keep_last=9),
        output=OutputConfig(directory=str(directory / "runs"), name=name, trackers=(), images_every=0),
    )
    gate = GateConfig(train=str(directory / "pairs.jsonl"), penalised="oks", steps=40, width=16)
    changes: dict[str, dict[str, Any]] = {
        "bt": {
            "algorithm": RewardBtConfig(centre_weight=0.01, margin_column="sure"),
            "training": replace(base.training, gradient_checkpointing=True),
        },
        "regression": {
            "data": ratings,
            "algorithm": RewardRegressionConfig(averaging="macro"),
            "model": replace(base.model, lora=None),
            "training": replace(base.training, steps=10, updates_per_rollout=2),
            "optimizer": replace(base.optimizer, learning_rate=5e-3),
        },
        "ridge": {
            "data": ratings,
            "algorithm": RewardRidgeConfig(gate=gate),
            "training": RewardTrainingConfig(micro_batch_size=5),
        },
    }
    return replace(base, **changes[name])


def main(settings: dict[str, Any]) -> None:
    # A group that is left and joined again may not find its members; here it serves all scenarios.
    Accelerator.end_training = lambda self: None  # type: ignore[method-assign]
    directory = Path(settings["directory"])
    for name in settings["scenarios"]:
        commands.train(scenario(directory, name))
    print("all scenarios ran")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
