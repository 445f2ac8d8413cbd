"""Whole runs of AWM on the miniature: it learns, it learns nothing from noise, and two processes equal one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from align.config.load import save_config
from align.config.shared import CheckpointConfig, OptimizerConfig, TrainingConfig
from diffusion import commands
from diffusion.config import AwmConfig, DiscreteTimes, RolloutConfig

from ..diffusion.models.assembled import RUN, assemble
from ..diffusion.models.config import miniature_run
from ..diffusion.models.miniature import PROMPTS


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


LEARNING = replace(
    RUN,
    rollout=replace(RUN.rollout, prompts_per_step=len(PROMPTS), group_size=8, batch_size=32, num_inference_steps=5),
    algorithm=AwmConfig(times=DiscreteTimes(draws=3), kl_beta=0.0, lagged=None),
)
STEPS = 8


def mean_rewards(shuffled: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Brightness of all samples of the first and of the last step; all prompts are in every step."""
    parts = assemble(LEARNING)
    weights = list(parts.policy.trainable_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    rewards = []
    for step in range(1, STEPS + 1):
        batch = parts.awm.collect(step)
        rewards.append(batch.rewards.values[:, 0])
        if shuffled:
            order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(step))
            batch = replace(batch, signal=replace(batch.signal, advantages=batch.signal.advantages[order]))
        optimizer.zero_grad()
        parts.awm.loss(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        parts.awm.after_step(step)
    return rewards[0], rewards[-1]


def rise_in_standard_errors(first: torch.Tensor, last: torch.Tensor) -> float:
    """Gain of the mean over its standard error; the spread between prompts is in it, which makes it conservative."""
    error = (first.var() / len(first) + last.var() / len(last)).sqrt()
    return float((last.mean() - first.mean()) / error)


def test_brightness_rises_and_does_not_with_shuffled_advantages():
    """More than 3 standard errors with the right advantages; clearly less when they are dealt out at random."""
    learned = rise_in_standard_errors(*mean_rewards(shuffled=False))
    unlearned = rise_in_standard_errors(*mean_rewards(shuffled=True))
    assert learned > 3
    assert unlearned < learned - 2


def run_in_processes(config, folder: Path, processes: int) -> None:
    """`align train` in a subprocess for each rank, over gloo on the CPU."""
    path = save_config(config, folder / f"config_{processes}.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(commands.__file__).resolve().parents[1]
    command = [
        sys.executable,
        "-c",
        "import sys; from align.config.load import load_config; from diffusion.commands import train; "
        "train(load_config(sys.argv[1]))",
        str(path),
    ]
    children = []
    for rank in range(processes):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            "CUDA_VISIBLE_DEVICES": "",
        }
        if processes > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        children.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert all(child.returncode == 0 for child in children), "\n".join(outputs)


def test_two_processes_equal_one(tmp_path):
    """Same global batch on 1 and 2 processes: the same samples, rewards and advantages, weights to float tolerance.

    Rollout batches of 2 on both, so that every picture is drawn in a batch of the same shape. Two updates per rollout,
    so that old log-probabilities take part.
    """
    folders = {}
    for world in (1, 2):
        config = miniature_run(
            tmp_path,
            rollout=RolloutConfig(
                prompts_per_step=2, group_size=4, batch_size=2, num_inference_steps=4, sampler=RUN.rollout.sampler
            ),
            training=TrainingConfig(steps=2, micro_batch_size=2, updates_per_rollout=2),
            optimizer=OptimizerConfig(learning_rate=1e-3),
            checkpoint=CheckpointConfig(every=1),
        )
        config = replace(config, output=replace(config.output, name=f"world{world}"))
        run_in_processes(config, tmp_path, world)
        folders[world] = tmp_path / "runs" / f"world{world}"

    def rows(world, step):
        return [
            json.loads(line)
            for line in (folders[world] / "samples" / f"step_{step:06d}.jsonl").read_text().splitlines()
        ]

    first = rows(1, 1), rows(2, 1)
    for one, two in zip(*first, strict=True):
        assert (one["index"], one["group_id"], one["prompt"]) == (two["index"], two["group_id"], two["prompt"])
        assert one["rewards"]["brightness"] == pytest.approx(two["rewards"]["brightness"], abs=1e-5)
        assert one["advantage"] == pytest.approx(two["advantage"], abs=1e-3)
    weights = [load_file(folders[world] / "checkpoints" / "step_000001" / "weights.safetensors") for world in (1, 2)]
    moved = max(float(tensor.abs().max()) for name, tensor in weights[0].items() if "lora_B" in name)
    assert moved > 1e-4
    for name, tensor in weights[0].items():
        # Adam divides by the gradient's size, so rounding shows most where gradients are near 0; steps are 1e-3.
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=2e-5)
    metrics = [
        {row["step"]: row for row in map(json.loads, (folders[world] / "metrics.jsonl").read_text().splitlines())}
        for world in (1, 2)
    ]
    for name in ("reward", "policy_loss", "kl", "kl_lagged", "grad_norm", "eval/brightness/mean"):
        if name in metrics[0][1]:
            assert metrics[0][1][name] == pytest.approx(metrics[1][1][name], rel=1e-2, abs=1e-5)
    assert metrics[0][2]["eval/brightness/mean"] == pytest.approx(metrics[1][2]["eval/brightness/mean"], abs=1e-3)
