"""Guidance scales that a model cannot follow."""

import json
from dataclasses import replace

import pytest

from diffusion.check_guidance import check_guidance, takes_guidance
from diffusion.checks import contradictions
from diffusion.config import DiffusionRun, EvaluationConfig, FluxModel, RolloutConfig


def folder_of(tmp_path, text):
    """A FLUX folder with this text as its network's settings."""
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(text)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    return tmp_path


def guided(path, rollout=1.0, evaluation=1.0):
    return DiffusionRun(
        model=FluxModel(path=str(path)),
        rollout=RolloutConfig(guidance_scale=rollout),
        evaluation=EvaluationConfig(guidance_scale=evaluation),
    )


def test_schnell_takes_no_guidance(tmp_path):
    schnell = folder_of(tmp_path, '{"guidance_embeds": false}')
    assert not list(check_guidance(guided(schnell)))
    found = list(check_guidance(guided(schnell, 3.5, 3.5)))
    assert [problem.keys[0] for problem in found] == ["rollout.guidance_scale", "evaluation.guidance_scale"]
    assert "3.5" in found[0].message
    assert found[1] in list(contradictions(guided(schnell, evaluation=3.5)))


def test_dev_does(tmp_path):
    assert not list(check_guidance(guided(folder_of(tmp_path, '{"guidance_embeds": true}'), 3.5, 1.0)))


@pytest.mark.parametrize("text", ["{}", "[]", "{"])
def test_a_folder_that_does_not_say_is_not_judged(tmp_path, text):
    assert takes_guidance(folder_of(tmp_path, text)) is None
    assert not list(check_guidance(guided(tmp_path, 3.5)))


def test_a_hub_id_and_other_families_are_not_judged():
    assert not list(check_guidance(guided("owner/name", 3.5)))
    assert not list(check_guidance(replace(DiffusionRun(), rollout=RolloutConfig(guidance_scale=3.5))))
