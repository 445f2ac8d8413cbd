"""Contradictions of a text-to-image run, before anything heavy is loaded."""

import pytest

from align.config.errors import ConfigError
from align.config.load import load_config

TEXT = """\
branch: diffusion
prompts: {train: train.txt, heldout: heldout.txt}
rollout: {prompts_per_step: 4, group_size: 4}
rewards: [{function: brightness}]
"""


@pytest.fixture
def problems(tmp_path):
    """Function of overrides -> the problems that are found, as texts."""
    (tmp_path / "train.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    (tmp_path / "heldout.txt").write_text("another prompt\n")
    (tmp_path / "run.yaml").write_text(TEXT)

    def find(*overrides, processes=None):
        try:
            load_config(tmp_path / "run.yaml", overrides, processes=processes)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    find.folder = tmp_path
    return find


def test_a_sound_config(problems):
    assert problems() == []
    assert problems("rollout.sampler.kind=ode", "algorithm.times.kind=uniform", "algorithm.lagged=null") == []


def test_fewer_prompts_than_a_step_takes(problems):
    (problem,) = problems("rollout.prompts_per_step=8")
    assert "a step takes 8 different prompts" in problem
    assert "has 6" in problem
    assert "at most 6" in problem


def test_prompt_files_that_cannot_be_used(problems):
    (missing,) = problems("prompts.train=nothing.txt")
    assert missing.startswith("override `prompts.train=nothing.txt`: `prompts.train`: ")
    (problems.folder / "empty.txt").write_text("\n\n")
    (empty,) = problems("prompts.heldout=empty.txt")
    assert "no prompts" in empty
    (problems.folder / "bad.jsonl").write_text('{"prompt": "x"}\n{"caption": "y"}\n')
    (bad,) = problems("prompts.train=bad.jsonl", "rollout.prompts_per_step=1")
    assert "bad.jsonl:2" in bad


def test_training_and_heldout_prompts_are_the_same_file(problems):
    (problem,) = problems("prompts.heldout=train.txt")
    assert "the same file" in problem
    (problems.folder / "link.txt").symlink_to(problems.folder / "train.txt")
    assert "the same file" in problems("prompts.heldout=link.txt")[0]


def test_evaluation_without_heldout_prompts(problems):
    assert problems("prompts.heldout=null") == []
    assert "no held-out prompts" in problems("prompts.heldout=null", "evaluation.every=5")[0]


def test_lagged_policy_off_but_rolling_out(problems):
    (problem,) = problems("algorithm.off_policy=true", "algorithm.lagged=null")
    assert "override `algorithm.off_policy=true`" in problem
    assert "override `algorithm.lagged=null`" in problem


def test_times_that_do_not_fit(problems):
    """14 steps, 90 %: 12 indices; without the pure noise 11 are left, so 12 draws need int(0.9 n) >= 13: n = 15."""
    assert problems("algorithm.times.draws=11") == []
    (problem,) = problems("algorithm.times.draws=12")
    assert "`algorithm.times.draws` to at most 11" in problem
    assert "`rollout.num_inference_steps` to at least 15" in problem
    assert problems("algorithm.times.draws=12", "rollout.num_inference_steps=15") == []
    assert problems("algorithm.times.draws=12", "algorithm.times.initial=allow") == []
    assert "raise `algorithm.times.until`" in problems("algorithm.times.until=0")[0]


def test_an_empty_range_of_noise(problems):
    (problem,) = problems("rollout.sampler={kind: sa_solver, noise_from: 0.9, noise_until: 0.3}")
    assert "an empty range" in problem


def test_unknown_recipe_and_model(problems):
    assert "no shipped config `x/y`" in problems("recipe=x/y")[0]
    assert "model.path" in problems("model.path=./nothing")[0]
    assert problems("model.path=owner/some-model") == []  # a hub id; nothing is asked of the hub here


def test_all_contradictions_together(problems):
    found = problems(
        "rollout.group_size=1",
        "rollout.prompts_per_step=7",
        "training.updates_per_rollout=2",
        "rewards.0.weight=0",
        "algorithm.times.draws=40",
        "optimizer.warmup_updates=1000",
        "output.trackers=[wandb, wandb]",
    )
    assert len(found) == 7


def test_processes(problems):
    assert problems(processes=16) == []
    (problem,) = problems(processes=17)
    assert "17 processes share the 16 samples" in problem


def test_processes_of_this_launch(problems, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "32")
    assert "32 processes share the 16 samples" in problems()[0]
