"""Whole runs on every family's miniature: from the folder through training to weights that stock diffusers reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from align.config.shared import CheckpointConfig, LoraConfig, OutputConfig
from diffusion import commands
from diffusion.config import (
    AwmConfig,
    DdimSampler,
    DiffusionRun,
    DiscreteTimes,
    EvaluationConfig,
    FlowGrpoConfig,
    FlowSdeSampler,
)
from diffusion.evaluate import evaluation_sampler
from diffusion.generate import draw
from diffusion.paths import DdpmPath

from .config import miniature_run
from .families import FAMILIES, Family, resolution
from .miniature import PROMPTS

GUIDANCE = 2.0
GUIDED_IN_THREE_WAYS = [family for family in FAMILIES if family.name in ("sd15", "flux", "qwen_image")]
"""By a second pass, by an input of the network, by a second pass at equal length."""


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Accelerate keeps its state in the process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run_of(family: Family, folder: Path, **changes: Callable[[Any], Any]) -> DiffusionRun:
    """One guided step of the miniature run on another family."""
    config = miniature_run(folder)
    family.pipeline(0).save_pretrained(folder / family.name)
    pixels = resolution(family.build())
    lora = LoraConfig(rank=4, alpha=8.0, targets="attention")
    config = replace(
        config,
        model=family.settings_of(folder / family.name, lora=lora),
        rollout=replace(
            config.rollout, resolution=pixels, guidance_scale=GUIDANCE, num_inference_steps=5, group_size=2
        ),
        training=replace(config.training, steps=1, micro_batch_size=2),
        evaluation=EvaluationConfig(seeds=1, num_inference_steps=2, guidance_scale=GUIDANCE, strip_every=0),
        checkpoint=CheckpointConfig(every=1),
        output=OutputConfig(directory=str(folder / "runs"), name="run", trackers=(), images_every=0),
    )
    return replace(config, **{name: change(getattr(config, name)) for name, change in changes.items()})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_awm(family, tmp_path):
    """The ratio before the first update is exactly 1, the weights move, and diffusers draws with what was saved."""
    config = run_of(family, tmp_path, algorithm=lambda _: AwmConfig(times=DiscreteTimes(draws=2)))
    folder = commands.train(config)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[1]["ratio_deviation"] == 0
    assert metrics[1]["grad_norm"] > 0
    assert all(np.isfinite(row["policy_loss"]) for row in metrics[1:])

    settings = evaluation_sampler(config.evaluation, config.rollout)
    stock = family.pipeline(0)
    stock.load_lora_weights(folder / "weights")
    model = family.around(stock)
    theirs = draw(model, model.network, PROMPTS[:2], (0,), settings)
    ours = commands.generate(config, checkpoint=folder, prompts=PROMPTS[:2], seeds=(0,), output=tmp_path / "pictures")
    drawn = [np.frombuffer(image.tobytes(), np.uint8).astype(int) for image in theirs]
    saved = [np.frombuffer(_pixels(path), np.uint8).astype(int) for path in ours]
    assert max(np.abs(a - b).max() for a, b in zip(drawn, saved, strict=True)) <= 1  # rounding to bytes
    base = family.build()
    assert [image.tobytes() for image in draw(base, base.network, PROMPTS[:2], (0,), settings)] != [
        image.tobytes() for image in theirs
    ]


@pytest.mark.parametrize("family", GUIDED_IN_THREE_WAYS, ids=lambda family: family.name)
def test_flow_grpo(family, tmp_path):
    """On a flow's chain with Flow-SDE steps, on the others' with DDIM. The first ratio is exactly 1."""
    noisy = DdimSampler(eta=1.0) if isinstance(family.build().path, DdpmPath) else FlowSdeSampler(noise_level=0.7)
    config = run_of(
        family,
        tmp_path,
        rollout=lambda rollout: replace(rollout, sampler=noisy),
        algorithm=lambda _: FlowGrpoConfig(kl_beta=0.01),
    )
    folder = commands.train(config)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[1]["ratio_deviation"] == 0
    assert metrics[1]["grad_norm"] > 0


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()
