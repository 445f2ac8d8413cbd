"""Whole runs of the methods on a chain: they learn, they learn nothing from noise, two processes equal one, resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from align.config.estimators import DdpoTracked
from align.config.pipeline import DrGrpo, FlowGrpo, Grpo, PipelineConfig, Rloo
from align.config.shaping import Affine
from align.config.shared import CheckpointConfig, OptimizerConfig, TrainingConfig
from align.config.trees import BranchGrpo, TreeGrpo
from align.engine.batching import even_cuts
from diffusion import commands
from diffusion.config import (
    AllSteps,
    BranchingConfig,
    CpsSampler,
    DanceGrpoConfig,
    DanceSdeSampler,
    DdpoConfig,
    DiffusionRun,
    FlowGrpoConfig,
    FlowSdeSampler,
    GuardConfig,
    LoopConfig,
    RandomWindow,
    ReinforceConfig,
    SlidingWindow,
)
from diffusion.ddpo import Ddpo

from ..diffusion.models.chained import FLOW, NOISE, chained
from ..diffusion.models.config import miniature_run
from ..diffusion.models.plain import plain_flow, plain_noise, plain_v
from .test_awm_runs import rise_in_standard_errors, run_in_processes


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def learning(run: DiffusionRun, method, base, sampler=None, **pipeline) -> DiffusionRun:
    """All four prompts in every step, eight pictures each."""
    rollout = replace(run.rollout, prompts_per_step=4, group_size=8, batch_size=32)
    if sampler is not None:
        rollout = replace(rollout, sampler=sampler)
    return replace(run, rollout=rollout, algorithm=method, pipeline=PipelineConfig(base=base, **pipeline))


def of_all_weights(run: DiffusionRun) -> DiffusionRun:
    return replace(run, model=replace(run.model, lora=None))


WIDE = {"clip_range": 0.04}
"""Latents of four elements: their mean log-probabilities spread as widely as those of a real latent do not."""
TREE = BranchingConfig(at=(0, 1, 2), factor=2)
RUNS = {
    "reinforce": (
        plain_flow,
        learning(FLOW, ReinforceConfig(), DrGrpo(singleton="raw"), transforms=(Affine(shift=-0.5),)),
    ),
    "rloo": (plain_flow, learning(FLOW, ReinforceConfig(), Rloo())),
    "rloo, noise predicted": (plain_noise, learning(NOISE, ReinforceConfig(), Rloo())),
    "ddpo": (plain_flow, learning(FLOW, DdpoConfig(**WIDE), Grpo(scale="batch"))),
    "ddpo, v predicted": (plain_v, learning(NOISE, DdpoConfig(**WIDE), DdpoTracked(min_count=8))),
    "loop": (plain_flow, learning(FLOW, LoopConfig(**WIDE), Rloo())),
    "loop, clipped form": (plain_flow, learning(FLOW, LoopConfig(**WIDE, objective="clip_only"), Rloo())),
    "loop, noise predicted": (plain_noise, learning(NOISE, LoopConfig(**WIDE, steps=AllSteps(share=1.0)), Rloo())),
    "flow_grpo": (plain_flow, learning(FLOW, FlowGrpoConfig(**WIDE, kl_beta=0.004), FlowGrpo())),
    "flow_grpo, noise predicted": (
        plain_noise,
        learning(NOISE, FlowGrpoConfig(**WIDE, kl_beta=0.001, kl_norm="exact"), FlowGrpo()),
    ),
    "fast, cps": (
        plain_flow,
        learning(FLOW, FlowGrpoConfig(**WIDE, steps=RandomWindow(latest=0.6)), FlowGrpo(), CpsSampler()),
    ),
    "mix_grpo": (
        plain_flow,
        learning(FLOW, FlowGrpoConfig(**WIDE, steps=SlidingWindow(size=2, every=1)), FlowGrpo()),
    ),
    "guard": (plain_flow, learning(FLOW, FlowGrpoConfig(**WIDE, guard=GuardConfig()), FlowGrpo())),
    "branch_grpo": (plain_flow, learning(FLOW, FlowGrpoConfig(**WIDE, branching=TREE), BranchGrpo())),
    "tree_grpo": (plain_flow, learning(FLOW, FlowGrpoConfig(**WIDE, branching=TREE), TreeGrpo())),
    "dance_grpo": (plain_flow, learning(FLOW, DanceGrpoConfig(**WIDE), Grpo(eps=1e-8), DanceSdeSampler())),
}


def rise(run: DiffusionRun, model, *, steps: int, updates: int, shuffled: bool) -> float:
    """Gain of brightness from the first to the last step, in standard errors."""
    parts = chained(run, model=model)
    weights = list(parts.policy.trainable_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    rewards = []
    for step in range(1, steps + 1):
        batch = parts.method.collect(step)
        rewards.append(batch.rewards.values[:, 0])
        if shuffled:
            order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(step))
            batch = replace(batch, signal=replace(batch.signal, advantages=batch.signal.advantages[order]))
        for update, cut in enumerate(even_cuts(len(batch), updates)):
            rows = batch.select(torch.arange(cut.start, cut.stop))
            parts.method.prepare_update(update, rows)
            optimizer.zero_grad()
            for piece in rows.passes():
                out = parts.method.loss(piece)
                (out.loss * out.count / rows.unit_count()).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        parts.method.after_step(step)
    return rise_in_standard_errors(rewards[0], rewards[-1])


@pytest.mark.parametrize("name", RUNS)
def test_brightness_rises_and_does_not_with_shuffled_advantages(name):
    """Invariant 32: more than 3 standard errors with the right advantages; not when they are dealt out at random."""
    make, run = RUNS[name]
    run, updates = of_all_weights(run), 1 if run.algorithm.kind == "reinforce" else 2
    assert rise(run, make(), steps=15, updates=updates, shuffled=False) > 3
    assert rise(run, make(), steps=15, updates=updates, shuffled=True) < 2


def test_a_pipeline_of_diffusers_learns():
    """The same on the SD3 miniature with adapters, one update per rollout."""
    run = learning(FLOW, LoopConfig(), Rloo())
    learned = rise(run, None, steps=8, updates=1, shuffled=False)
    assert learned > 3
    assert rise(run, None, steps=8, updates=1, shuffled=True) < learned - 2


PROCESSES = {
    "flow_grpo with a tree, guard and KL": {
        "algorithm": FlowGrpoConfig(
            clip_range=0.01,
            kl_beta=0.01,
            guard=GuardConfig(divide_by_dt=False),
            branching=BranchingConfig(at=(0, 1), factor=2),
            steps_per_pass=2,
        ),
        "pipeline": PipelineConfig(base=BranchGrpo()),
    },
    "loop that skips rows without a signal": {
        "algorithm": LoopConfig(clip_range=0.01, skip_zero_advantages=True),
        "pipeline": PipelineConfig(base=Rloo()),
    },
}


@pytest.mark.parametrize("name", PROCESSES)
def test_two_processes_equal_one(tmp_path, name):
    """Invariant 28: groups span both processes; two updates per rollout, so that stored log-probabilities take part."""
    folders = {}
    for world in (1, 2):
        config = miniature_run(
            tmp_path,
            training=TrainingConfig(steps=2, micro_batch_size=2, updates_per_rollout=2),
            optimizer=OptimizerConfig(learning_rate=1e-3),
            checkpoint=CheckpointConfig(every=1),
            **PROCESSES[name],
        )
        config = replace(
            config,
            rollout=replace(config.rollout, sampler=FlowSdeSampler(), batch_size=2),
            output=replace(config.output, name=f"world{world}"),
        )
        if world == 1:
            commands.train(config)
        else:
            run_in_processes(config, tmp_path, world)
        folders[world] = tmp_path / "runs" / f"world{world}"

    def rows(world):
        return list(map(json.loads, (folders[world] / "samples" / "step_000001.jsonl").read_text().splitlines()))

    advantages = []
    for one, two in zip(rows(1), rows(2), strict=True):
        assert (one["index"], one["group_id"], one["prompt"]) == (two["index"], two["group_id"], two["prompt"])
        assert one["rewards"]["brightness"] == pytest.approx(two["rewards"]["brightness"], abs=1e-5)
        advantages.append((one["advantage"], two["advantage"]))
    for one, two in advantages:
        assert one == pytest.approx(two, abs=2e-3)
    weights = [load_file(folders[world] / "checkpoints" / "step_000001" / "weights.safetensors") for world in (1, 2)]
    assert max(float(tensor.abs().max()) for key, tensor in weights[0].items() if "lora_B" in key) > 1e-4
    for key, tensor in weights[0].items():
        # Adam divides by the gradient's size, so rounding shows most where gradients are near 0; steps are 1e-3.
        torch.testing.assert_close(tensor, weights[1][key], rtol=1e-3, atol=4e-5)


def metrics_of(folder: Path) -> dict[int, dict]:
    return {row["step"]: row for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())}


def test_a_broken_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    """Invariant 29, bit for bit: a sliding window, DDPO's memory of rewards, two updates per rollout."""

    def config(name):
        run = miniature_run(
            tmp_path,
            algorithm=DdpoConfig(clip_range=0.01, steps=SlidingWindow(size=2, every=1)),
            pipeline=PipelineConfig(base=DdpoTracked(min_count=2)),
            training=TrainingConfig(steps=4, micro_batch_size=4, updates_per_rollout=2),
        )
        rollout = replace(run.rollout, sampler=FlowSdeSampler(), num_inference_steps=5)
        return replace(run, rollout=rollout, output=replace(run.output, name=name))

    whole = commands.train(config("whole"))
    AcceleratorState._reset_state(reset_partial_state=True)
    after_step = Ddpo.after_step

    def power_cut(self, step):
        if step == 3:
            raise RuntimeError("power cut")
        return after_step(self, step)

    monkeypatch.setattr(Ddpo, "after_step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        commands.train(config("broken"))
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    broken = commands.train(config("broken"), resume=whole.parent / "broken")
    weights = [load_file(folder / "checkpoints" / "step_000004" / "weights.safetensors") for folder in (whole, broken)]
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key])
    one, two = metrics_of(whole), metrics_of(broken)
    for step in (3, 4):
        assert one[step]["first_trained_step"] == two[step]["first_trained_step"]
        for key in ("loss", "reward", "ratio_deviation", "approx_kl", "ddpo/frac_tracked", "grad_norm"):
            assert one[step][key] == two[step][key]
    assert one[3]["ratio_deviation"] > 0
    assert one[3]["ddpo/frac_tracked"] > 0
