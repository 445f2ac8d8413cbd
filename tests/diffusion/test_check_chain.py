"""Contradictions between models, samplers and the methods on a denoising chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from align.config.load import load_config
from align.config.pipeline import Grpo, PipelineConfig, Rloo
from align.config.shared import TrainingConfig
from diffusion.check_chain import check_chain
from diffusion.check_sampling import check_sampling
from diffusion.config import (
    AllSteps,
    AwmConfig,
    BranchingConfig,
    CpsSampler,
    DanceGrpoConfig,
    DanceSdeSampler,
    DdimSampler,
    DdpoConfig,
    DiffusionRun,
    FlowGrpoConfig,
    FlowSdeSampler,
    FluxModel,
    GuardConfig,
    LoopConfig,
    OdeSampler,
    RandomSteps,
    RandomWindow,
    ReinforceConfig,
    RolloutConfig,
    SaSolverSampler,
    SdxlModel,
    SlidingWindow,
    StableDiffusionModel,
)

ROLLOUT = RolloutConfig(group_size=4, num_inference_steps=10, sampler=FlowSdeSampler())
RUN = DiffusionRun(rollout=ROLLOUT, algorithm=FlowGrpoConfig())
LOOP = replace(RUN, algorithm=LoopConfig(), pipeline=PipelineConfig(base=Rloo()))
UNET = replace(RUN, model=StableDiffusionModel(path="x"), rollout=replace(ROLLOUT, sampler=DdimSampler()))


def rollout(run=RUN, **changes):
    return replace(run, rollout=replace(run.rollout, **changes))


def found(run):
    return [*check_sampling(run), *check_chain(run)]


def method(run=RUN, **changes):
    return replace(run, algorithm=replace(run.algorithm, **changes))


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        LOOP,
        UNET,
        replace(UNET, algorithm=DdpoConfig()),
        replace(UNET, model=SdxlModel(path="x")),
        replace(RUN, algorithm=DanceGrpoConfig(), rollout=replace(ROLLOUT, sampler=DanceSdeSampler())),
        rollout(sampler=CpsSampler()),
        rollout(share_initial_noise=True),
        rollout(method(detach_unconditional=True), guidance_scale=4.5),
        method(steps=RandomWindow(size=3), clip_range=1e-5),
        method(steps=SlidingWindow(size=4)),
        method(guard=GuardConfig(), clip_range=2e-6),
        method(kl_beta=0.04),
        method(branching=BranchingConfig(at=(0, 4), factor=2)),
        method(log_prob="sum", clip_range=0.2),
        replace(RUN, algorithm=AwmConfig(), rollout=replace(ROLLOUT, sampler=SaSolverSampler())),
    ],
)
def test_sound_settings(run):
    assert found(run) == []


CONTRADICTIONS = {
    "a flow rule on a U-Net": (
        rollout(UNET, sampler=FlowSdeSampler()),
        ("rollout.sampler.kind", "model.kind"),
        "predicts noise, not a velocity",
        "to ddim.",
    ),
    "DDIM on a flow model": (
        rollout(sampler=DdimSampler()),
        ("rollout.sampler.kind", "model.kind"),
        "predicts a velocity",
        "to flow_sde or dance_sde or cps.",
    ),
    "the same noise and none later": (
        replace(RUN, algorithm=AwmConfig(), rollout=replace(ROLLOUT, sampler=OdeSampler(), share_initial_noise=True)),
        ("rollout.share_initial_noise", "rollout.sampler.kind"),
        "all its pictures would be the same",
        "false",
    ),
    "LOOP with DDIM's eta 0": (
        rollout(replace(LOOP, model=UNET.model), sampler=DdimSampler(eta=0.0)),
        ("algorithm.kind", "rollout.sampler.eta"),
        "`rollout.sampler.eta` is 0, so its steps are deterministic",
        "`rollout.sampler.kind` to ddim, with noise above 0",
    ),
    "noise level 0": (
        rollout(sampler=FlowSdeSampler(noise_level=0.0)),
        ("algorithm.kind", "rollout.sampler.noise_level"),
        "learns from the log-probability of each step",
        "noise above 0",
    ),
    "the deterministic sampler": (
        rollout(sampler=OdeSampler()),
        ("algorithm.kind", "rollout.sampler.kind"),
        "the sampler is `ode`: its steps have no log-probability",
        "flow_sde or dance_sde or cps",
    ),
    "a solver without densities": (
        rollout(sampler=SaSolverSampler()),
        ("algorithm.kind", "rollout.sampler.kind"),
        "its steps have no log-probability",
        "flow_sde",
    ),
    "one step": (
        rollout(num_inference_steps=1),
        ("algorithm.steps", "rollout.num_inference_steps"),
        "no step could be trained",
        "Raise `rollout.num_inference_steps`",
    ),
    "a window that does not fit": (
        method(steps=RandomWindow(size=6)),
        ("algorithm.steps", "rollout.num_inference_steps"),
        "a window of 6 steps does not fit between steps 0 and 5 of 10",
        "change `algorithm.steps`",
    ),
    "the last step of CPS": (
        rollout(method(steps=AllSteps(share=1.0)), sampler=CpsSampler()),
        ("algorithm.steps.share", "rollout.sampler.kind"),
        "under `cps` it has no noise",
        "0.99",
    ),
    "a window over the last step of CPS": (
        rollout(method(steps=SlidingWindow(latest=1.0)), sampler=CpsSampler()),
        ("algorithm.steps.latest", "rollout.sampler.kind"),
        "under `cps` it has no noise",
        "0.99",
    ),
    "sums with a clip for means": (
        method(log_prob="sum"),
        ("algorithm.clip_range", "algorithm.log_prob"),
        "0.0001 is one for their mean",
        "0.1 or 0.2",
    ),
    "no guidance to detach": (
        method(detach_unconditional=True),
        ("algorithm.detach_unconditional", "rollout.guidance_scale"),
        "is sampled with guidance 1",
        "Remove",
    ),
    "guidance as an input": (
        replace(rollout(method(detach_unconditional=True), guidance_scale=3.5), model=FluxModel(path="x")),
        ("algorithm.detach_unconditional", "rollout.guidance_scale"),
        "as an input of its network",
        "Remove",
    ),
    "two updates without a ratio": (
        replace(RUN, algorithm=ReinforceConfig(), training=TrainingConfig(updates_per_rollout=2)),
        ("algorithm.kind", "training.updates_per_rollout"),
        "has no ratio",
        "`algorithm.kind: ddpo`",
    ),
    "LOOP with another baseline": (
        replace(LOOP, pipeline=PipelineConfig(base=Grpo())),
        ("algorithm.kind", "pipeline.base.kind"),
        "leave-one-out baseline; found `pipeline.base: grpo`",
        "{kind: rloo}",
    ),
    "LOOP without others": (
        rollout(LOOP, group_size=1),
        ("algorithm.kind", "rollout.group_size"),
        "found one picture per prompt",
        "2 or more",
    ),
    "the released KL of CPS": (
        rollout(method(kl_beta=0.1), sampler=CpsSampler()),
        ("algorithm.kl_norm", "rollout.sampler.kind"),
        "which `cps` does not",
        "`exact` or `velocity`",
    ),
    "skipping what a KL pulls on": (
        method(kl_beta=0.1, skip_zero_advantages=True),
        ("algorithm.kl_beta", "algorithm.skip_zero_advantages"),
        "a KL term pulls on them",
        "kl_beta: 0",
    ),
    "a guard for squares": (
        rollout(method(guard=GuardConfig()), sampler=CpsSampler()),
        ("algorithm.guard", "rollout.sampler.kind"),
        "a bare squared difference",
        "flow_sde",
    ),
    "a guard for sums": (
        method(guard=GuardConfig(), log_prob="sum", clip_range=0.2),
        ("algorithm.guard", "algorithm.log_prob"),
        "means over latent elements",
        "mean",
    ),
    "branches on random steps": (
        method(steps=RandomSteps(), branching=BranchingConfig(at=(0, 1), factor=2)),
        ("algorithm.branching", "algorithm.steps.kind"),
        "leaves out some",
        "random_window",
    ),
    "splits out of order": (
        method(branching=BranchingConfig(at=(4, 0), factor=2)),
        ("algorithm.branching.at", "algorithm.steps"),
        "ascending places from 0 to 8 among the trained steps, found [4, 0]",
        "Correct",
    ),
    "splits behind the window": (
        method(steps=RandomWindow(size=2), branching=BranchingConfig(at=(0, 2), factor=2)),
        ("algorithm.branching.at", "algorithm.steps"),
        "from 0 to 1",
        "Correct",
    ),
    "a tree of another size": (
        method(branching=BranchingConfig(at=(0, 1, 2), factor=2)),
        ("algorithm.branching", "rollout.group_size"),
        "3 splits into 2 make 8 pictures of a prompt, found 4",
        "`rollout.group_size: 8`",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_names_its_settings_and_a_way_out(name):
    run, keys, message, way_out = CONTRADICTIONS[name]
    (problem,) = found(run)
    assert problem.keys == keys
    assert message in problem.message
    assert way_out in problem.way_out


def test_the_settings_are_read_from_a_file(tmp_path):
    """Every tagged union by its kind, and what a method does not use is refused by it."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "branch: diffusion\n"
        "rewards: [{function: brightness}]\n"
        "rollout: {group_size: 4, num_inference_steps: 10, sampler: {kind: cps, noise_level: 0.8}}\n"
        "algorithm:\n"
        "  kind: flow_grpo\n"
        "  clip_range: 1e-5\n"
        "  steps: {kind: random_window, size: 3, latest: 0.5}\n"
        "  branching: {at: [0], factor: 4}\n"
    )
    config = load_config(path)
    assert config.algorithm == FlowGrpoConfig(
        clip_range=1e-5, steps=RandomWindow(size=3), branching=BranchingConfig(at=(0,), factor=4)
    )
    assert config.rollout.sampler == CpsSampler(noise_level=0.8)
    path.write_text("branch: diffusion\nrewards: [{function: brightness}]\nalgorithm: {kind: ddpo, kl_beta: 0.1}\n")
    with pytest.raises(Exception, match="kl_beta"):
        load_config(path)
