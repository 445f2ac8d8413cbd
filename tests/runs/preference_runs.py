"""Whole runs of the preference branch on a miniature, for tests/runs/test_preference_runs.py.

    python preference_runs.py '{"directory": "/somewhere", "scenarios": ["dpo", "simpo"]}'

Under a launcher for several processes all scenarios run in one start: starting is what takes the time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from align.config.shared import EmaConfig, LoraConfig, OutputConfig
from preference import commands, pair_method
from preference.config import (
    AdpaConfig,
    CausalLm,
    DckdConfig,
    DpoConfig,
    EvaluationConfig,
    GenerationConfig,
    PairsConfig,
    PreferenceRun,
    ReferenceConfig,
    SftConfig,
    SimpoConfig,
    TeacherConfig,
    TextCheckpointConfig,
    TextOptimizerConfig,
    TextTrainingConfig,
    TwoTeachersConfig,
)

WORDS = ("cat", "the", "a", "in", "ok", "dog")
STEPS = 4
TAUGHT = ("dckd", "adpa")
"""Scenarios whose teachers are asked first."""


def write_pairs(path: Path, rows: int, seed: int) -> None:
    """Chosen answers speak of cats; lengths are mixed, so that tokens and pairs weigh differently."""
    draw = random.Random(seed)
    lines = []
    for number in range(rows):
        prompt = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 6)))
        lines.append(
            {
                "prompt": [{"role": "user", "content": f"{prompt} {number}"}],
                "chosen": [{"role": "assistant", "content": "the cat " * draw.randint(1, 3)}],
                "rejected": [{"role": "assistant", "content": "ok in " * draw.randint(1, 3)}],
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_answers(path: Path, pairs: Path, seed: int) -> None:
    """An answer of the student to each prompt of a file of pairs, in another order."""
    draw = random.Random(seed)
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    draw.shuffle(rows)
    lines = [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": "dog a " * draw.randint(1, 3)}]}
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def base(directory: Path) -> PreferenceRun:
    """Six pairs a step: two processes take three each, in micro-batches of two and one."""
    return PreferenceRun(
        seed=3,
        model=CausalLm(path=str(directory / "model"), lora=LoraConfig(rank=2, alpha=4.0, targets="all_linear")),
        data=PairsConfig(
            train=str(directory / "train.jsonl"),
            heldout=str(directory / "heldout.jsonl"),
            pairs_per_step=6,
            max_length=48,
            max_prompt_length=32,
        ),
        optimizer=TextOptimizerConfig(learning_rate=1e-2),
        training=TextTrainingConfig(steps=STEPS, micro_batch_size=2),
        evaluation=EvaluationConfig(every=2, batch_size=4, generate=GenerationConfig(limit=3, max_new_tokens=4)),
        checkpoint=TextCheckpointConfig(every=1, keep_last=9),
        output=OutputConfig(directory=str(directory / "runs"), trackers=(), images_every=0),
    )


def scenario(directory: Path, name: str) -> PreferenceRun:
    """Settings of a scenario; between them they use every source of the reference and both kinds of training."""
    config = base(directory)
    full = replace(config.model, lora=None)
    teachers = {
        "path": str(directory / "teacher"),
        "records": str(directory / "runs" / f"records_{name}"),
        "batch_size": 2,
        "top_k": 8,
    }
    changes: dict[str, dict[str, Any]] = {
        "dpo": {
            "algorithm": DpoConfig(sft_weight=0.5, loss={"sigmoid": 1.0, "apo_zero": 0.5}),
            "training": replace(config.training, updates_per_rollout=2, micro_batch_size=1),
        },
        "dpo_full": {
            "algorithm": DpoConfig(ld_alpha=0.5, wpo=True),
            "model": full,
            "training": replace(config.training, gradient_checkpointing=True, ema=EmaConfig(decay=0.5)),
        },
        "dpo_copy": {
            "algorithm": DpoConfig(loss="ipo"),
            "model": full,
            "reference": ReferenceConfig(precompute=False, keep_copy=True),
        },
        "sft": {"algorithm": SftConfig(), "training": replace(config.training, micro_batch_size=3)},
        "simpo": {
            "algorithm": SimpoConfig(sft_weight=0.2),
            "training": replace(config.training, gradient_checkpointing=True),
        },
        "dckd": {"algorithm": DckdConfig(alpha=1.0, teacher=TeacherConfig(**teachers))},
        "adpa": {
            "algorithm": AdpaConfig(
                teacher=TwoTeachersConfig(reference=str(directory / "model"), **teachers),
                student_answers=str(directory / "answers.jsonl"),
            ),
            "model": full,
        },
        "simpo_bf16": {
            "algorithm": SimpoConfig(),
            "model": full,
            "training": replace(config.training, mixed_precision="bf16"),
        },
    }
    config = replace(config, **changes[name])
    return replace(config, output=replace(config.output, name=name))


def run(directory: Path, name: str, **more: Any) -> Path:
    """One scenario from beginning to end."""
    if name in TAUGHT:
        commands.teach(scenario(directory, name))
    return commands.train(replace(scenario(directory, name), **more))


def kill_in_step(step: int) -> None:
    """From now on, the loss of this step ends the process as a power cut would."""
    whole = pair_method.PairMethod.loss

    def loss(self: pair_method.PairMethod, micro: Any) -> Any:
        if self._step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, micro)

    pair_method.PairMethod.loss = loss  # type: ignore[method-assign]


def main(settings: dict[str, Any]) -> None:
    # A group that is left and joined again may not find its members; here it serves all scenarios.
    Accelerator.end_training = lambda self: None  # type: ignore[method-assign]
    directory = Path(settings["directory"])
    if settings.get("kill"):
        kill_in_step(settings["kill"])
    for name in settings["scenarios"]:
        folder = directory / "runs" / name
        if name in TAUGHT:
            commands.teach(scenario(directory, name))
        commands.train(scenario(directory, name), resume=folder if settings.get("resume") else None)
    print("all scenarios ran")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
