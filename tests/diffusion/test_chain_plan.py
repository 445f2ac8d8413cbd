"""What the methods on a chain cost, by hand, and the plan of each."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from align.config.shared import TrainingConfig
from diffusion.arithmetic import rollout_passes, training_passes
from diffusion.config import (
    AllSteps,
    DanceGrpoConfig,
    DdpoConfig,
    FlowGrpoConfig,
    FlowSdeSampler,
    LoopConfig,
    RandomWindow,
    ReinforceConfig,
    RolloutConfig,
    SlidingWindow,
)
from diffusion.plan import plan

from .models.config import miniature_run

GUIDED = RolloutConfig(num_inference_steps=10, guidance_scale=4.5)
PLAIN = RolloutConfig(num_inference_steps=10)


@pytest.mark.parametrize(
    ("method", "rollout", "together"),
    [
        (FlowGrpoConfig(kl_beta=0.04), GUIDED, 92),  # 20 + 9 x 6 + 18 for the base
        (FlowGrpoConfig(kl_beta=0.04, detach_unconditional=True), GUIDED, 74),  # 20 + 9 x (2 + 2) + 18
        (FlowGrpoConfig(steps=RandomWindow(size=3)), PLAIN, 19),  # 10 + 9
        (FlowGrpoConfig(steps=SlidingWindow(size=4)), replace(PLAIN, num_inference_steps=25), 37),  # 25 + 12
        (DdpoConfig(steps=AllSteps(share=1.0)), replace(GUIDED, num_inference_steps=50), 400),  # 100 + 50 x 6
        (DanceGrpoConfig(), replace(PLAIN, num_inference_steps=16), 43),  # 16 + 9 x 3
        (ReinforceConfig(), PLAIN, 37),  # 10 + 9 x 3
    ],
)
def test_network_evaluations_of_a_picture_by_hand(method, rollout, together):
    """A backward pass counts as two."""
    parts = [rollout_passes(rollout), *training_passes(method, rollout, TrainingConfig())]
    assert sum((part.count for part in parts), Fraction()) == together


@pytest.mark.parametrize("method", [ReinforceConfig(), DdpoConfig(), LoopConfig(), FlowGrpoConfig(), DanceGrpoConfig()])
def test_every_method_has_a_plan(tmp_path, method):
    run = miniature_run(tmp_path, algorithm=replace(method, steps_per_pass=2))
    run = replace(run, rollout=replace(run.rollout, sampler=FlowSdeSampler(), num_inference_steps=6))
    found = plan(run)
    rows = {row.label: row for section in found.sections for row in section.rows}
    assert method.kind in found.title
    assert "for 8 noised pictures at once" in rows["activations"].note  # micro-batches of 4, two steps each
    trained = 3 if method.kind == "dance_grpo" else 5  # int(5 * 0.6), int(6 * 0.99)
    assert rows["training"].note.startswith(f"{trained} steps, forward 1 + backward 2")
