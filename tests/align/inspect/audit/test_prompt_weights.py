"""Weights of an adapter in an audit: of each prompt, mixed with the user's, and of other rewards than it was taught."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.adapter import use
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights
from align.config.shared import RewardConfig
from align.inspect.audit.command import audit_rows
from align.inspect.audit.page import audit_page
from align.inspect.audit.rows import made_rows
from align.report.tables import write_page
from align.shaping.normaliser import Normaliser

from ...adapter.stub import WordCounts, decided_adapter

WORDS = WordCounts(("explain", "short"))
CHAT = [{"role": "user", "content": "short"}]


class Config:
    """Stands for a root dataclass whose method says what makes the score."""

    def __init__(self, path, anchor=0.0, **weights):
        self._weights, self._pipeline = weights, PipelineConfig(weights=AdapterWeights(path=str(path), anchor=anchor))

    def scoring(self):
        return tuple(RewardConfig(function=name, weight=one) for name, one in self._weights.items()), self._pipeline


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Objectives b and a, taught on scores between 0 and 1; its logits are 3 for `b` per "explain", for `a` per
    "short"."""
    monkeypatch.setattr(use, "_own_encoder", lambda record, device: WORDS)
    taught = Normaliser.fitted(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), "rank")
    return decided_adapter(tmp_path / "adapter", ("b", "a"), WORDS, taught, 3)


def rows(largest=1.0, prompts=("explain", CHAT)):
    """Two prompts, four samples each: a falls, b rises, up to `largest`; m is a metric."""
    return made_rows(
        [
            {"prompt": prompt, "rewards": {"a": largest * (3 - s) / 3, "b": largest * s / 3, "m": 0.0}}
            for prompt in prompts
            for s in range(4)
        ],
        "here",
    )


def test_each_prompt_has_its_weights(adapter):
    """A conversation is read as the text of its turn. LayerNorm makes (1, 0) of a word into (1, -1): the weights of the
    two prompts are each other's mirror, so both rewards have the mean 1/2, and the same share of the sum."""
    found = audit_rows(rows(), config=Config(adapter, a=1.0, b=1.0, m=0.0))
    weighing = found.weighing
    assert (weighing.names, weighing.prompts) == (["a", "b"], ["explain", "short"])
    assert weighing.weights[0, 1] > 0.9
    assert_close(weighing.weights[1], weighing.weights[0].flip(0))
    assert_close(weighing.weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert [round(one.weight, 6) for one in found.rewards] == [0.5, 0.5, 0.0]
    assert found.rewards[0].share == pytest.approx(found.rewards[1].share)


def test_an_anchor_mixes_the_users_weights_in(adapter):
    """(1 - 1/2) w + 1/2 (3/4, 1/4)."""
    alone, mixed = (
        audit_rows(rows(), config=Config(adapter, anchor, a=3.0, b=1.0, m=0.0)).weighing.weights
        for anchor in (0.0, 0.5)
    )
    assert_close(mixed, 0.5 * alone + 0.5 * torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_other_rewards_than_it_was_taught(adapter):
    """Another name is said, no share is made up; another unit shows in the scores: of 0, 33, 67, 100 three are beyond
    0 to 1."""
    wrong = audit_rows(rows(), config=Config(adapter, a=1.0, m=1.0))
    assert "was trained for the objectives b, a; the rewards with a weight are a, m" in wrong.findings[0]
    assert all(one.share != one.share for one in wrong.rewards)
    found = audit_rows(rows(100.0), config=Config(adapter, a=1.0, b=1.0, m=0.0))
    assert found.weighing.outside == {"b": 0.75, "a": 0.75}
    assert sum("lie outside 0 to 1, where they lay when the adapter was taught" in one for one in found.findings) == 2
    missing = audit_rows(rows(), config=Config(adapter / "none", a=1.0, b=1.0, m=0.0))
    assert "The adapter weighs nothing here: expected an adapter at" in missing.findings[0]


def test_prompts_that_hardly_matter(adapter):
    alike = audit_rows(rows(prompts=("one", "two")), config=Config(adapter, a=1.0, b=1.0, m=0.0))
    assert "constant weights do as well (a 0.50, b 0.50)" in alike.findings[0]
    different = audit_rows(rows(), config=Config(adapter, a=1.0, b=1.0, m=0.0))
    assert not any("nearly alike" in one for one in different.findings)


def test_page_and_record(adapter, tmp_path):
    found = audit_rows(rows(), config=Config(adapter, a=1.0, b=1.0, m=0.0))
    page = audit_page(found)
    assert [one.title for one in page.tables][1:3] == ["Weights of the adapter", "Weights of each prompt"]
    write_page(page, tmp_path / "out", "audit")
    record = json.loads((tmp_path / "out" / "audit.json").read_text())["prompt_weights"]
    assert [one["prompt"] for one in record["prompts"]] == ["explain", "short"]
    assert set(record["prompts"][0]["weights"]) == {"a", "b"}
    assert audit_rows(replace(rows(), texts=())).as_json()["prompt_weights"] is None


def test_where_scores_lay_that_a_normaliser_was_fitted_to():
    """0, 1, .., 100: quantiles 1 and 99; mean 50 and three times sqrt(850 * 101 / 100) around it; 0 and 100."""
    scores = torch.arange(101.0).unsqueeze(1)
    assert Normaliser.fitted(scores, "minmax").ranges().tolist() == [[1.0, 99.0]]
    assert Normaliser.fitted(scores, "rank").ranges().tolist() == [[0.0, 100.0]]
    assert Normaliser.fitted(scores, "none").ranges().tolist() == [[float("-inf"), float("inf")]]
    spread = 3 * (850 * 101 / 100) ** 0.5
    assert_close(Normaliser.fitted(scores, "zscore").ranges()[0], torch.tensor([50 - spread, 50 + spread]).double())
