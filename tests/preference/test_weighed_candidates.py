"""Candidates scored by the weights of their prompt: the winner, and so the pair, differs between prompts."""

import pytest
import torch

from align.adapter import use
from align.config.shaping import AdapterWeights
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.shaping.normaliser import Normaliser
from preference.config import CandidatesConfig
from preference.make_pairs import make_pairs
from preference.score import score_rows

from ..align.adapter.stub import decided_adapter

REWARDS = """
def long(completions, **columns):
    return [float(len(text)) / 10 for text in completions]

def short(completions, **columns):
    return [-float(len(text)) / 10 for text in completions]
"""


class AsksForLength:
    """Two numbers: whether the prompt has the word `long`, and whether not."""

    name = "asks for length"

    def __call__(self, texts):
        return torch.tensor([[float("long" in text), float("long" not in text)] for text in texts])

    def fingerprint(self):
        return "asks-for-length"


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """LayerNorm makes (1, -1) of the two numbers; the weights below turn the sign into the objective: 0.98 of it."""
    monkeypatch.setattr(use, "_own_encoder", lambda record, device: AsksForLength())
    taught = Normaliser.fitted(torch.zeros(1, 2), "none")
    return decided_adapter(tmp_path, ("long", "short"), AsksForLength(), taught, 4)


def rewards(folder, *names):
    (folder / "mine.py").write_text(REWARDS)
    return [RewardConfig(function=f"{folder / 'mine.py'}:{name}") for name in names]


def test_the_pair_follows_the_prompt(adapter, tmp_path):
    answers = ["a", "a much longer answer"]
    rows = [
        {"prompt": "a long story", "candidates": answers},
        {"prompt": [{"role": "user", "content": "one word"}], "candidates": answers},
    ]
    settings = CandidatesConfig(weights=AdapterWeights(path=str(adapter)))
    found = score_rows(rows, rewards(tmp_path, "long", "short"), settings)
    weight = (torch.tensor([4.0, 0.0])).softmax(dim=0)[0].item()  # GELU(4) is 4, GELU(-4) nearly 0
    assert found.rows[0]["scores"] == pytest.approx([0.1 * (2 * weight - 1), 2.0 * (2 * weight - 1)], rel=1e-3)
    assert found.rows[1]["scores"] == pytest.approx([-0.1 * (2 * weight - 1), -2.0 * (2 * weight - 1)], rel=1e-3)
    made = make_pairs(found.rows, settings).rows
    assert made[0]["chosen"] == answers[1]
    assert made[1]["chosen"] == [{"role": "assistant", "content": answers[0]}]


def test_other_rewards_are_refused_before_anything_is_scored(adapter, tmp_path):
    settings = CandidatesConfig(weights=AdapterWeights(path=str(adapter)))
    with pytest.raises(AlignError, match=r"trained for the objectives long, short; .* are long"):
        score_rows([{"prompt": "p", "candidates": ["a", "b"]}], rewards(tmp_path, "long"), settings)
