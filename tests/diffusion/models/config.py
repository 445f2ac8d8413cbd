"""A whole run on the miniature: model folder, prompt files and settings in a temporary folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from align.config.group_relative import Grpo
from align.config.pipeline import PipelineConfig
from align.config.shared import (
    CheckpointConfig,
    LoraConfig,
    OptimizerConfig,
    OutputConfig,
    RewardConfig,
    TrainingConfig,
)
from diffusion.config import (
    AwmConfig,
    DiffusionRun,
    DiscreteTimes,
    EvaluationConfig,
    OdeSampler,
    PromptsConfig,
    RolloutConfig,
    Sd3Model,
)

from .miniature import PROMPTS, miniature_pipeline

HELDOUT = [{"prompt": "a blue circle", "class": "one"}, {"prompt": "two red squares", "class": "count"}]


def miniature_run(folder: Path, **changes: object) -> DiffusionRun:
    """Two steps of brightness on the miniature; keywords replace whole sections."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        miniature_pipeline().save_pretrained(folder / "model")
        (folder / "train.txt").write_text("\n".join(PROMPTS))
        (folder / "heldout.jsonl").write_text("\n".join(json.dumps(row) for row in HELDOUT))
    config = DiffusionRun(
        model=Sd3Model(
            path=str(folder / "model"),
            max_sequence_length=0,
            lora=LoraConfig(rank=4, alpha=8.0, targets="all_linear"),
        ),
        prompts=PromptsConfig(train=str(folder / "train.txt"), heldout=str(folder / "heldout.jsonl")),
        rollout=RolloutConfig(
            prompts_per_step=2, group_size=4, batch_size=8, num_inference_steps=4, sampler=OdeSampler()
        ),
        rewards=(RewardConfig(function="brightness"),),
        pipeline=PipelineConfig(base=Grpo(scale="group", unbiased=False)),
        algorithm=AwmConfig(times=DiscreteTimes(draws=2)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        training=TrainingConfig(steps=2, micro_batch_size=4),
        evaluation=EvaluationConfig(seeds=2, num_inference_steps=3, strip_prompts=2, strip_every=1),
        checkpoint=CheckpointConfig(every=1),
        output=OutputConfig(directory=str(folder / "runs"), name="run", trackers=(), images_every=1),
    )
    return replace(config, **changes)
