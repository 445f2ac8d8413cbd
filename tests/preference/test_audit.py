"""Answers for an audit: prompts, directions, scored twice; and what a config takes for its score."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState

from align.config.pipeline import PipelineConfig
from align.config.shaping import WeightedSum, ZScore
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.inspect.audit.command import audit_rows, scoring_of
from align.inspect.audit.rows import read_rows
from align.rewards.scorer import Scorer
from preference import commands
from preference.audit import scored_answers
from preference.candidates import Answer
from preference.config import CandidatesConfig, CausalLm, EvaluationConfig, GenerationConfig, PairsConfig, PreferenceRun
from preference.data import read_prompts

from .tokenizers import model_folder

LENGTH, DISTINCT = RewardConfig(function="text_length"), RewardConfig(function="distinct", weight=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model, and three prompts of which two are the same."""
    root = tmp_path_factory.mktemp("audit")
    model_folder(root / "model")
    texts = ["the cat", "in a", "the cat"]
    rows = [{"prompt": [{"role": "user", "content": text}], "class": text[:3]} for text in texts]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run_of(folder, **candidates):
    usual = {"prompts": str(folder / "prompts.jsonl"), "max_new_tokens": 4, "rewards": (LENGTH, DISTINCT)}
    return PreferenceRun(
        model=CausalLm(path=str(folder / "model")),
        data=PairsConfig(max_length=128, max_prompt_length=100, heldout=None),
        candidates=CandidatesConfig(**{**usual, **candidates}),
    )


class Echo:
    """Answers with the number of the sample; cannot answer the second prompt."""

    at_once = 3

    def usable(self):
        return [0, 2]

    def answers(self, wanted):
        return [Answer(text=f"{'x ' * number}{place}", finish="stop", tokens=1) for place, number in wanted]


class Shaky(Scorer):
    """Every scoring is 1 higher than the one before."""

    calls = 0

    def score(self, samples):
        table = super().score(samples)
        self.calls += 1
        return replace(table, values=table.values + self.calls - 1)


def test_all_answers_of_a_prompt_are_scored_twice(folder):
    """Batches of three: the second of each batch's two scorings is 1 higher; of a cached reward there is none."""
    prompts = read_prompts(str(folder / "prompts.jsonl"))
    found = list(scored_answers(Echo(), prompts, Shaky([LENGTH, DISTINCT]), 2, ["distinct"]))
    assert [(row["class"], row["seed"], row["completion"]) for row in found] == [
        ("the", 0, "0"),
        ("the", 1, "x 0"),
        ("the", 0, "2"),
        ("the", 1, "x 2"),
    ]
    assert [row["rewards"]["text_length"] for row in found] == [1, 2, 1, 2 + 2]
    assert [row["rewards_again"]["text_length"] for row in found] == [2, 3, 2, 2 + 3]
    assert all(row["rewards_again"]["distinct"] is None for row in found)


def test_a_config_is_audited(folder, tmp_path):
    """Equal prompts are answered once; the weights are those of the candidates; length is a feature."""
    config = run_of(folder)
    found = read_rows(commands.draw_scored(config, samples=3, prompts=64, output=tmp_path))
    assert found.group_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(found.texts[::3]) == ["the cat", "in a"]
    assert torch.equal(found.again, found.values)
    assert [(one.name, one.weight) for one in audit_rows(found, config=config).rewards] == [
        ("text_length", 1.0),
        ("distinct", 2.0),
    ]
    assert set(found.features) == {"length"}


def test_what_cannot_be_audited(folder, tmp_path):
    options = {"samples": 2, "prompts": 2, "output": tmp_path}
    with pytest.raises(AlignError, match="names no reward"):
        commands.draw_scored(run_of(folder, rewards=()), **options)
    with pytest.raises(AlignError, match=r"there are no prompts to answer: `data.heldout` is null"):
        commands.draw_scored(run_of(folder, prompts=None), **options)
    with pytest.raises(AlignError, match="at temperature 0 the likeliest token is taken"):
        commands.draw_scored(run_of(folder, temperature=0.0), **options)


def test_the_score_of_a_config(folder):
    """Rewards of the evaluation are metrics beside those of the candidates, and the score where there are none."""
    both = replace(
        run_of(folder, transforms=(ZScore(),)),
        evaluation=EvaluationConfig(
            generate=GenerationConfig(), rewards=(LENGTH, RewardConfig(function="repetition", weight=3.0))
        ),
    )
    rewards, pipeline = scoring_of(both)
    assert [(one.function, one.weight) for one in rewards] == [("text_length", 1), ("distinct", 2), ("repetition", 0)]
    assert pipeline.transforms == (ZScore(),)
    rewards, pipeline = scoring_of(replace(both, candidates=None))
    assert [(one.function, one.weight) for one in rewards] == [("text_length", 1), ("repetition", 3)]
    assert pipeline == PipelineConfig(combine=WeightedSum())
