"""Answers along drawn directions for an audit, and the score that a run of DPA makes of rewards."""

import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState

from align.config.directions import Arc, Listed
from align.config.shaping import ZScore
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.inspect.audit.command import audit_rows
from align.inspect.audit.rows import read_rows
from preference.config import CausalLm
from preference.dpa import commands
from preference.dpa.checks import contradictions
from preference.dpa.config import DpaConfig, DpaRun, PromptsConfig, SteeringConfig

from ..tokenizers import model_folder


def run_of(folder, heldout="heldout.jsonl", **algorithm):
    return DpaRun(
        model=CausalLm(path=str(folder / "model")),
        data=PromptsConfig(
            train=str(folder / "heldout.jsonl"),
            heldout=None if heldout is None else str(folder / heldout),
            max_length=256,
            max_prompt_length=200,
        ),
        rewards=(RewardConfig(function="text_length"), RewardConfig(function="distinct", name="varied")),
        algorithm=DpaConfig(**{"directions": Arc(low=0.0, high=90.0), "max_new_tokens": 4, **algorithm}),
        evaluation=SteeringConfig(count=3),
    )


def test_the_score_is_along_the_middle_of_the_shown_directions():
    """0, 45 and 90 degrees: the sum of the three unit vectors points at 45 degrees. With objectives, C carries it to
    the rewards: (1, 0) on `short = -text_length` alone is -1 on text_length."""
    rewards, pipeline = run_of_nothing().scoring()
    assert [one.weight for one in rewards] == pytest.approx([0.5**0.5] * 2)
    assert pipeline.transforms == (ZScore(scope="batch"),)
    mixed = run_of_nothing(
        objectives={"short": {"text_length": -1.0}, "varied": {"varied": 1.0}},
        directions=Listed(directions=({"short": 2.0},)),
        scale="none",
    )
    rewards, pipeline = mixed.scoring()
    assert [one.weight for one in rewards] == [-1.0, 0.0]
    assert pipeline.transforms == ()


def test_weights_beside_directions_are_refused():
    """Nobody would read them."""
    config = replace(run_of_nothing(), rewards=(RewardConfig(function="text_length", weight=-1.0),))
    found = [str(problem) for problem in contradictions(config) if "`rewards.0.weight` is -1" in str(problem)]
    assert "DPA reads no weights: directions weigh" in found[0]


def run_of_nothing(**algorithm):
    return DpaRun(
        rewards=(RewardConfig(function="text_length"), RewardConfig(function="distinct", name="varied")),
        algorithm=DpaConfig(**{"directions": Arc(), **algorithm}),
        evaluation=SteeringConfig(count=3),
    )


def test_answers_along_a_direction_of_each_prompt(tmp_path):
    model_folder(tmp_path / "model")
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in ("the cat", "in a", "a cat")]
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = run_of(tmp_path)
    found = read_rows(commands.draw_scored(config, samples=3, prompts=2, output=tmp_path / "audit"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert found.group_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(found.texts[::3]) == ["the cat", "in a"]  # rewards and people do not see the control text
    assert [one.weight for one in audit_rows(found, config=config).rewards] == pytest.approx([0.5**0.5] * 2)
    with pytest.raises(AlignError, match="there are no held-out prompts"):
        commands.draw_scored(run_of(tmp_path, heldout=None), samples=2, prompts=2, output=tmp_path)
