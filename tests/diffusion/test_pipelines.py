"""AWM learns from any pipeline: every published preset and every estimator that pictures have enough for.

What a rollout of pictures cannot feed is refused by its fields' names before a model is loaded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from align.advantages import available
from align.advantages.registry import find
from align.config.errors import ConfigError
from align.config.group_relative import Grpo
from align.config.load import load_config
from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from align.presets import PRESETS
from align.shaping.pipeline import SignalPipeline
from diffusion import commands
from diffusion.assemble import check_estimators

from .models.assembled import RUN, assemble

BASES = [kind for kind in available() if find(kind).stage == "base"]
FOR_PICTURES = (
    "bnpo", "ddpo_tracked", "dr_grpo", "flow_grpo", "gpg", "grpo", "hapo_token_group", "m_grpo", "ngrpo", "opo",
    "pass_at_k", "psr_nsr", "reference_gain", "reinforce_pp", "reinforce_pp_baseline", "remax", "rloo",
)  # fmt: skip
"""Bases that need rewards, groups, and what a collector can build."""
NEEDS = {
    "branch_grpo": ["mask", "step_key"],
    "canon": ["metric"],
    "copo_consistency": ["answers"],
    "egae": ["mask", "values", "truncated"],
    "gae": ["mask", "values"],
    "gigpo": ["mask", "state_key"],
    "igpo": ["mask", "confidence", "turn_id"],
    "mars_turn": ["mask", "turn_id"],
    "pure_min": ["mask", "token_rewards", "step_end"],
    "returns": ["mask"],
    "salt": ["mask", "state_key"],
    "spo_chain": ["mask", "logprobs", "values"],
    "spo_tree": ["mask", "token_ids"],
    "stepwise_gain": ["mask", "done_reward_seq"],
    "tempo": ["mask", "token_ids"],
    "tree_grpo": ["mask", "step_key"],
}
SHAPERS = {
    "aspo_tool": ["first_tool_pos"],
    "novelty_bonus": ["mask", "state_key"],
    "probability_mask": ["mask", "logprobs"],
    "ucas": ["mask", "self_certainty", "token_logits"],
    "user_soft_min": ["user_groups"],
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
def test_awm_learns_with_every_estimator_that_a_collector_can_feed(parts, kind):
    batch, gradient = learn(parts, with_base(kind))
    assert batch.signal.advantages.shape == (8,)
    assert batch.signal.advantages.abs().max() > 0
    assert gradient.isfinite().all()
    assert gradient.norm() > 0


def pictures_scored(parts, config):
    """How many pictures are scored in a step, and its batch."""
    scorer, seen = parts.awm._collector._scorer, []
    scoring = scorer.score
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "score", lambda samples: (seen.append(len(samples)), scoring(samples))[1])
        batch, _ = learn(parts, config)
    return sum(seen), batch


def test_further_pictures_are_drawn_for_those_who_compare_with_them(parts):
    """Two prompts, four samples each: eight pictures; one more per prompt for ReMax, per sample for the gain."""
    counts = {kind: pictures_scored(parts, with_base(kind))[0] for kind in ("opo", "remax", "reference_gain")}
    assert counts == {"opo": 8, "remax": 8 + 2, "reference_gain": 8 + 8}


def test_equal_lengths_make_opo_the_centred_reward(parts):
    opo, centred = (learn(parts, with_base(kind))[0].signal for kind in ("opo", "dr_grpo"))
    torch.testing.assert_close(opo.advantages, centred.advantages, rtol=1e-5, atol=1e-6)
    hapo = learn(parts, with_base("hapo_token_group"))[0].signal
    grpo = learn(parts, with_base("grpo", unbiased=False, eps=1e-6))[0].signal
    torch.testing.assert_close(hapo.advantages, grpo.advantages, rtol=1e-4, atol=1e-5)


def test_remax_compares_with_one_picture_of_the_prompt(parts):
    """reward - advantage is the greedy reward: one number per prompt."""
    _, batch = pictures_scored(parts, with_base("remax"))
    greedy = batch.signal.scores - batch.signal.advantages
    for group in batch.samples.group_ids.unique():
        own = greedy[batch.samples.group_ids == group]
        torch.testing.assert_close(own, own[:1].expand_as(own), rtol=0, atol=1e-5)


def test_the_gain_over_the_reference_by_its_parts():
    """reward - advantage is the reference's reward: it stays where training began while the samples' rewards move."""
    parts = assemble()
    then, first = learn(parts, with_base("reference_gain"))
    parts.disturb()
    now, second = learn(parts, with_base("reference_gain"))
    assert torch.equal(now.samples.index, then.samples.index)
    references = [batch.signal.scores - batch.signal.advantages for batch in (then, now)]
    torch.testing.assert_close(references[1], references[0], rtol=0, atol=1e-5)
    assert (now.signal.scores - then.signal.scores).abs().max() > 1e-3
    assert first.norm() > 0
    assert second.norm() > 0


def test_two_pipelines_are_two_signals(parts):
    """Dr. GRPO has the unit of the rewards, GRPO none: the pictures are the same, the advantages proportional."""
    centred, standardised = (learn(parts, with_base(kind))[0].signal.advantages for kind in ("dr_grpo", "grpo"))
    assert torch.equal(centred.sign(), standardised.sign())
    assert standardised.abs().max() > 2 * centred.abs().max()


@pytest.mark.parametrize("kind", NEEDS)
def test_what_pictures_lack_is_named(kind):
    """By the checks of every command: `align plan` tells it, too, together with all other problems."""
    with pytest.raises(ConfigError, match=rf"{kind} needs ") as error:
        load_config("demo/awm_tiny", [f"pipeline.base.kind={kind}", "output.name=.."])
    message = str(error.value)
    assert all(f"`{name}`" in message for name in NEEDS[kind])
    assert "Choose an estimator that does without" in message
    assert "2 problems" in message
    assert "`output.name` expects the name of a folder" in message


@pytest.mark.parametrize("kind", SHAPERS)
def test_shapers_are_asked_too(kind):
    with pytest.raises(ConfigError, match=rf"{kind} needs ") as error:
        load_config("demo/awm_tiny", [f"pipeline.shapers=[{{kind: {kind}}}]"])
    assert all(f"`{name}`" in str(error.value) for name in SHAPERS[kind])


def test_settings_made_in_python_are_asked_too():
    config = load_config("demo/awm_tiny", [])
    with pytest.raises(AlignError, match="`pipeline`: gae needs `mask`, `values`"):
        check_estimators(replace(config, pipeline=with_base("gae")))
    with pytest.raises(AlignError, match="canon needs `metric`"):
        assemble(replace(RUN, pipeline=with_base("canon")))


@pytest.mark.parametrize(("kind", "field"), [("canon", "metric"), ("remax", "greedy_rewards")])
def test_a_reward_can_be_what_is_missing(kind, field):
    load_config("demo/awm_tiny", [f"pipeline.base.kind={kind}", f"pipeline.inputs={{{field}: shapes}}"])


def test_an_input_that_no_reward_can_be():
    with pytest.raises(ConfigError, match="Did you mean `metric`"):
        load_config("demo/awm_tiny", ["pipeline.inputs={metrik: shapes}"])


def test_nothing_is_made_before_the_refusal(tmp_path, monkeypatch):
    """No model, no run folder."""
    monkeypatch.setattr(commands, "load_model", lambda *given: pytest.fail("a model was loaded"))
    config = load_config("demo/awm_tiny", [f"output.directory={tmp_path}"])
    with pytest.raises(AlignError, match="gae needs `mask`, `values`"):
        commands.train(replace(config, pipeline=with_base("gae")), name="run")
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
