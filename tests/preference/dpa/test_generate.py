"""Directions from an adapter, and the best of neighbouring directions, when a policy answers."""

import json

import pytest
import torch
from typer.testing import CliRunner

from align.adapter import use
from align.cli.app import app
from align.config.directions import Cap
from align.errors import AlignError
from align.shaping.directions import angle_between, from_integers
from align.shaping.normaliser import Normaliser
from align.shaping.steering import Scale
from align.types import RewardTable
from preference.candidates import Answer
from preference.data import read_prompts
from preference.dpa import commands
from preference.dpa.config import DpaConfig
from preference.dpa.control import Control
from preference.dpa.nearby import BestNearby, asked_nearby, neighbours_of

from ...align.adapter.stub import WordCounts, decided_adapter
from .runs import config_of

ASK = {"prompts": ("short", "explain"), "seeds": (0,)}
NAN = float("nan")
WORDS = WordCounts(("explain", "short"))


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Objectives length and vowels: a prompt with `explain` is all but about length, one with `short` about vowels."""
    monkeypatch.setattr(use, "_own_encoder", lambda record, device: WORDS)
    taught = Normaliser.fitted(torch.zeros(1, 2), "none")
    return decided_adapter(tmp_path / "adapter", ("length", "vowels"), WORDS, taught, 3)


def test_each_prompt_is_answered_along_its_weights(folder, adapter, tmp_path):
    """3 and -3 behind GELU are 3 and about 0: weights e^3 / (e^3 + 1) = 0.953 and 0.047, as a unit vector 0.9988 and
    0.049. The text of each prompt has its own numbers."""
    found = commands.generate(config_of(folder), output=tmp_path / "a.jsonl", direction="auto", adapter=adapter, **ASK)
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert [row["direction"] for row in rows] == ["vowels 100, length 5", "vowels 5, length 100"]
    assert rows[0]["adapter_weights"]["vowels"] == pytest.approx(0.953, abs=2e-3)
    assert sum(rows[1]["adapter_weights"].values()) == pytest.approx(1.0)
    assert "100 x vowels + 5 x length" in rows[0]["prompt"]
    assert "5 x vowels + 100 x length" in rows[1]["prompt"]


def test_directions_beyond_the_trained_ones_are_counted(folder, adapter, tmp_path, caplog):
    config = config_of(folder, directions=Cap(main={"vowels": 1.0}, degrees=10.0))
    commands.generate(config, output=tmp_path / "a.jsonl", direction="auto", adapter=adapter, **ASK)
    assert "the directions of 1 of 2 prompts are beyond those that were trained" in caplog.text


def test_what_does_not_go_together(folder, adapter, tmp_path):
    config, out = config_of(folder), tmp_path / "out.jsonl"
    with pytest.raises(AlignError, match=r"go together, and no adapter is given"):
        commands.generate(config, output=out, direction="auto", **ASK)
    with pytest.raises(AlignError, match=r"go together, and the direction is `vowels=1`"):
        commands.generate(config, output=out, direction="vowels=1", adapter=adapter, **ASK)
    other = config_of(folder, objectives={"helpful": {"vowels": 1.0}, "brief": {"length": -1.0}})
    with pytest.raises(AlignError, match=r"weighs length, vowels; this policy was trained for the objectives helpful"):
        commands.generate(other, output=out, direction="auto", adapter=adapter, **ASK)
    with pytest.raises(AlignError, match="expected an adapter at"):
        commands.generate(config, output=out, direction="auto", adapter=tmp_path / "none", **ASK)
    with pytest.raises(AlignError, match="compared on the common scale of the rewards"):
        commands.generate(config, output=out, direction="vowels=1", neighbours=3, **ASK)
    assert not out.exists()


def test_options_of_other_branches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option, value in (("--adapter", "x"), ("--neighbours", "3")):
        with pytest.raises(AlignError, match=f"`{option}` is for runs of `branch: dpa`, found `preference`"):
            CliRunner().invoke(app, ["generate", "demo/dpo_tiny", option, value, "-p", "a"], catch_exceptions=False)


def test_neighbours_are_near_and_the_first_is_the_asked_one():
    """Up to 30 degrees, and rounding to hundredths; what is asked for is never asked against."""
    vector = (98, 17, -9)
    found = neighbours_of(vector, 40, 0, 7)
    assert found[0] == vector
    assert len(set(found)) > 30
    assert max(angle_between(from_integers(one), from_integers(vector)) for one in found) < 31
    assert min(one[0] for one in found) > 0
    assert min(one[1] for one in found) >= 0
    assert found == neighbours_of(vector, 40, 0, 7)
    assert found[1:] != neighbours_of(vector, 40, 0, 8)[1:]
    assert neighbours_of(vector, 1, 0) == [vector]


class Inner:
    """Answers row r with the text `r`; cannot answer row 5."""

    at_once = 8

    def identity(self):
        return {"model": "m", "sampling": {}}

    def usable(self):
        return [0, 1, 2, 3, 4]

    def answers(self, wanted):
        return [Answer(text=str(row), finish="stop", tokens=1) for row, _ in wanted]


class Scorer:
    """Looks the rewards of an answer up."""

    def __init__(self, rewards):
        self.rewards = rewards

    def score(self, samples):
        values = torch.tensor([self.rewards[int(text)] for text in samples.completions])
        return RewardTable(names=("a", "b"), values=values, weights=torch.ones(2))


def test_the_best_answer_along_the_asked_direction_is_taken(folder):
    """Prompt 0 asks for a: of answers 0 and 1 the second has more a (and less b). Prompt 1 asks for b, where answer 2
    is unscored. Where nothing is scored the answer to the asked direction itself is taken. Prompt 2 lacks a row."""
    texts = read_prompts(str(folder / "train.jsonl")).select([0, 1, 2])
    near = [[(100, 0), (80, 60)], [(0, 100), (60, 80)], [(0, 100), (60, 80)]]
    rewards = {0: (1.0, 9.0), 1: (2.0, 0.0), 2: (9.0, NAN), 3: (0.0, 1.0)}
    shared = {"control": Control.of(DpaConfig(), ("a", "b")), "scale": Scale.none(2)}
    source = BestNearby(Inner(), texts, near, scorer=Scorer(rewards), **shared)
    assert source.at_once == 4
    assert source.usable() == [0, 1]
    assert [answer.text for answer in source.answers([(0, 0), (1, 0)])] == ["1", "3"]
    unscored = dict.fromkeys(range(4), (NAN, NAN))
    blind = BestNearby(Inner(), texts, near, scorer=Scorer(unscored), **shared)
    assert [answer.text for answer in blind.answers([(0, 0), (1, 0)])] == ["0", "2"]


def test_rows_of_neighbours_have_numbers_of_their_own(folder):
    texts = read_prompts(str(folder / "train.jsonl")).select([2, 1])
    control = Control.of(DpaConfig(), ("a", "b"))
    asked = asked_nearby(texts, control, [[(100, 0), (0, 100)]] * 2)
    assert asked.numbers == (4, 5, 2, 3)
    assert "0 x a + 100 x b" in asked.rows[1].prompt[0]["content"]


def test_a_policy_answers_under_neighbours(folder, tmp_path):
    """One candidate a seed, the prompt with the asked direction."""
    config = config_of(folder, scale="none")
    ask = {**ASK, "seeds": (0, 1)}
    found = commands.generate(config, output=tmp_path / "a.jsonl", direction="vowels=1", neighbours=3, **ask)
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert [len(row["candidates"]) for row in rows] == [2, 2]
    assert [row["direction"] for row in rows] == ["vowels 100"] * 2
    assert "100 x vowels + 0 x length" in rows[0]["prompt"]
