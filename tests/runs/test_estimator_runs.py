"""Whole runs of AWM with estimators for which the rollout collects something of its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState

from align.advantages.registry import find
from align.config.pipeline import PipelineConfig
from align.config.shared import TrainingConfig
from diffusion import commands
from diffusion.config import RolloutConfig

from ..diffusion.models.assembled import RUN
from ..diffusion.models.config import miniature_run
from .test_awm_runs import run_in_processes


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def rows_of(folder, step):
    lines = (folder / "samples" / f"step_{step:06d}.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda row: row["index"])


def with_base(kind):
    return PipelineConfig(base=find(kind).options_type(), clip=None)


@pytest.mark.parametrize("kind", ["opo", "hapo_token_group", "remax", "reference_gain"])
def test_a_whole_run(tmp_path, kind):
    """Two steps from settings to report; advantages of the second step are those of its rewards.

    Groups of four with equal lengths: OPO sums to 0, HAPO too; ReMax and the gain are rewards minus another reward.
    """
    config = miniature_run(tmp_path, pipeline=with_base(kind))
    folder = commands.train(replace(config, evaluation=replace(config.evaluation, every=0)), name=kind)
    assert (folder / "report.html").is_file()
    rows = rows_of(folder, 2)
    assert len(rows) == 8
    assert any(row["advantage"] != 0 for row in rows)
    for group in {row["group_id"] for row in rows}:
        own = [row for row in rows if row["group_id"] == group]
        baselines = [row["rewards"]["brightness"] - row["advantage"] for row in own]
        if kind in ("opo", "hapo_token_group"):
            assert sum(row["advantage"] for row in own) == pytest.approx(0.0, abs=1e-4)
        elif kind == "remax":
            assert max(baselines) - min(baselines) < 1e-5  # one greedy picture of the prompt
        else:
            assert max(baselines) - min(baselines) > 1e-5  # one picture of the base model for each sample


@pytest.mark.parametrize("kind", ["remax", "reference_gain"])
def test_two_processes_compare_with_the_same_baselines(tmp_path, kind):
    """Rows of a prompt lie on both processes; rollout batches of 2 on both, so that pictures have the same rounding."""
    folders = {}
    for world in (1, 2):
        config = miniature_run(
            tmp_path,
            pipeline=with_base(kind),
            rollout=RolloutConfig(
                prompts_per_step=2, group_size=4, batch_size=2, num_inference_steps=4, sampler=RUN.rollout.sampler
            ),
            training=TrainingConfig(steps=2, micro_batch_size=2),
        )
        config = replace(config, output=replace(config.output, name=f"world{world}"))
        run_in_processes(config, tmp_path, world)
        folders[world] = tmp_path / "runs" / f"world{world}"
    for step in (1, 2):
        for one, two in zip(rows_of(folders[1], step), rows_of(folders[2], step), strict=True):
            assert one["index"] == two["index"]
            assert one["advantage"] == pytest.approx(two["advantage"], abs=2e-4)  # one grey level of one picture
