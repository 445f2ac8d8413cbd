"""AWM learns from any pipeline: every published preset and every estimator that pictures have enough for.

What a rollout of pictures cannot feed is refused by its fields' names before a model is loaded.
"""

from __future__ import annotations

import pytest
import torch

from align.advantages import available
from align.advantages.registry import find
from align.config.group_relative import Grpo
from align.config.load import load_config
from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from align.presets import PRESETS
from align.shaping.pipeline import SignalPipeline
from diffusion import commands
from diffusion.assemble import check_estimators, read_inputs
from diffusion.collect import COLLECTED

from .models.assembled import assemble

BASES = [kind for kind in available() if find(kind).stage == "base"]
FOR_PICTURES = (
    "bnpo", "ddpo_tracked", "dr_grpo", "flow_grpo", "gpg", "grpo", "m_grpo", "ngrpo", "pass_at_k", "psr_nsr",
    "reinforce_pp", "reinforce_pp_baseline", "rloo",
)  # fmt: skip
"""Bases that need rewards and groups only."""
NEEDS = {
    "branch_grpo": ["mask", "step_key"],
    "canon": ["metric"],
    "copo_consistency": ["answers"],
    "egae": ["mask", "values", "truncated"],
    "gae": ["mask", "values"],
    "gigpo": ["mask", "state_key"],
    "hapo_token_group": ["lengths"],
    "igpo": ["mask", "confidence", "turn_id"],
    "mars_turn": ["mask", "turn_id"],
    "opo": ["lengths"],
    "pure_min": ["mask", "token_rewards", "step_end"],
    "reference_gain": ["reference_rewards"],
    "remax": ["greedy_rewards"],
    "returns": ["mask"],
    "salt": ["mask", "state_key"],
    "spo_chain": ["mask", "logprobs", "values"],
    "spo_tree": ["mask", "token_ids"],
    "tempo": ["mask", "token_ids"],
    "tree_grpo": ["mask", "step_key"],
}
SHAPERS = {
    "aspo_tool": ["first_tool_pos", "lengths"],
    "novelty_bonus": ["mask", "state_key"],
    "probability_mask": ["mask", "logprobs"],
    "ucas": ["mask", "self_certainty", "token_logits"],
    "verl_effective_rank": ["rank_features"],
    "xrpo_novelty": ["logprobs"],
}


@pytest.fixture(scope="module")
def parts():
    """One miniature for all: only the pipeline changes."""
    return assemble()


def learn(parts, config):
    """Batch and gradient of a step with this pipeline."""
    parts.awm._collector.pipeline = SignalPipeline(config)
    parts.awm._collector.pipeline.check_collected(COLLECTED)
    batch = parts.awm.collect(1)
    gradient = parts.gradient(batch.select(torch.arange(4)), batch.select(torch.arange(4, 8)))
    return batch, gradient


def with_base(kind, **options):
    return PipelineConfig(base=find(kind).options_type(**options))


def test_the_two_lists_are_all_bases():
    assert sorted((*FOR_PICTURES, *NEEDS)) == BASES


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_awm_learns_with_every_preset(parts, preset):
    batch, gradient = learn(parts, preset.pipeline)
    assert batch.signal.advantages.shape == (8,)
    assert batch.signal.advantages.isfinite().all()
    assert batch.signal.advantages.abs().max() > 0  # eight different pictures
    assert gradient.isfinite().all()
    assert gradient.norm() > 0


@pytest.mark.parametrize("kind", FOR_PICTURES)
def test_awm_learns_with_every_estimator_that_needs_rewards_and_groups(parts, kind):
    batch, gradient = learn(parts, with_base(kind))
    assert batch.signal.advantages.shape == (8,)
    assert batch.signal.advantages.abs().max() > 0
    assert gradient.isfinite().all()
    assert gradient.norm() > 0


def test_two_pipelines_are_two_signals(parts):
    """Dr. GRPO has the unit of the rewards, GRPO none: the pictures are the same, the advantages proportional."""
    centred, standardised = (learn(parts, with_base(kind))[0].signal.advantages for kind in ("dr_grpo", "grpo"))
    assert torch.equal(centred.sign(), standardised.sign())
    assert standardised.abs().max() > 2 * centred.abs().max()


@pytest.mark.parametrize("kind", NEEDS)
def test_what_pictures_lack_is_named(kind):
    config = load_config("demo/awm_tiny", [f"pipeline.base.kind={kind}"])
    with pytest.raises(AlignError, match=rf"`pipeline`: {kind} needs ") as error:
        check_estimators(config)
    assert all(f"`{name}`" in str(error.value) or f"{name} or" in str(error.value) or f"or {name}" in str(error.value)
               for name in NEEDS[kind])  # fmt: skip
    assert "Choose an estimator that does without" in str(error.value)


@pytest.mark.parametrize("kind", SHAPERS)
def test_shapers_are_asked_too(kind):
    config = load_config("demo/awm_tiny", [f"pipeline.shapers=[{{kind: {kind}}}]"])
    with pytest.raises(AlignError, match=rf"{kind} needs ") as error:
        read_inputs(config)
    assert all(f"`{name}`" in str(error.value) for name in SHAPERS[kind])


@pytest.mark.parametrize(("kind", "field"), [("canon", "metric"), ("remax", "greedy_rewards")])
def test_a_reward_can_be_what_is_missing(kind, field):
    config = load_config("demo/awm_tiny", [f"pipeline.base.kind={kind}", f"pipeline.inputs={{{field}: shapes}}"])
    check_estimators(config)


def test_an_input_that_no_reward_can_be():
    config = load_config("demo/awm_tiny", ["pipeline.inputs={metrik: shapes}"])
    with pytest.raises(AlignError, match="Did you mean `metric`"):
        check_estimators(config)


def test_nothing_is_made_before_the_refusal(tmp_path, monkeypatch):
    """No model, no run folder."""
    monkeypatch.setattr(commands, "load_model", lambda *given: pytest.fail("a model was loaded"))
    overrides = ["pipeline.base.kind=gae", f"output.directory={tmp_path}"]
    with pytest.raises(AlignError, match="gae needs `mask`, `values`"):
        commands.train(load_config("demo/awm_tiny", overrides), name="run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FOR_PICTURES)
def test_the_plan_of_every_estimator_can_be_made(kind):
    config = load_config("demo/awm_tiny", [f"pipeline.base.kind={kind}"])
    assert config.pipeline.base == find(kind).options_type()


def test_a_shaper_after_a_base(parts):
    config = PipelineConfig(base=Grpo(), shapers=(find("negative_only").options_type(),))
    batch, _ = learn(parts, config)
    assert batch.signal.advantages.max() == 0
    assert batch.signal.advantages.min() < 0
