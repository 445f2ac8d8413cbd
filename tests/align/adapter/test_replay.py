"""Stored rewards under the weights of an adapter: what `align replay` computes for a run that had constant weights."""

import pytest
import torch
from torch.testing import assert_close

from align.adapter import use
from align.adapter.files import save_adapter
from align.adapter.record import AdapterRecord
from align.adapter.use import PromptWeigher
from align.config.group_relative import DrGrpo
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights
from align.engine.reward_tables import StepTable
from align.errors import AlignError
from align.inspect.replay.run import reshaped
from align.inspect.replay.settings import ReplaySettings
from align.shaping.adapter import PreferenceAdapter
from align.shaping.normaliser import Normaliser
from align.types import RewardTable

from .stub import WordCounts

PROMPTS = ("explain why", "explain why", "short dog", "short dog")


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Random weights for two objectives; the stub stands in for its encoder."""
    monkeypatch.setattr(use, "_own_encoder", lambda record, device: WordCounts())
    torch.manual_seed(1)
    network = PreferenceAdapter(8, 2, hidden_size=4)
    torch.nn.init.normal_(network.out.weight, std=3.0)
    record = AdapterRecord(
        objectives=("b", "a"),
        encoder={"kind": "minilm"},
        encoder_name="word counts",
        encoder_fingerprint=WordCounts().fingerprint(),
        embedding_size=8,
        hidden_size=4,
        temperature=1.0,
        target={"normaliser": "none"},
    )
    return save_adapter(tmp_path, network.state_dict(), Normaliser.fitted(torch.zeros(1, 2), "none"), record)


def step(values):
    zeros = torch.zeros(4)
    table = RewardTable(names=("a", "b", "metric"), values=values, weights=torch.tensor([1.0, 1.0, 0.0]))
    return StepTable(
        step=1,
        table=table,
        group_ids=torch.tensor([0, 0, 1, 1]),
        classes=(),
        prompts=PROMPTS,
        scores=zeros,
        advantages=zeros,
    )


def test_the_adapter_weighs_stored_prompts(adapter):
    """a counts for the first of two samples, b for the second: the scores are the two weights of the prompt."""
    values = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]] * 2)
    pipeline = PipelineConfig(weights=AdapterWeights(path=str(adapter)), base=DrGrpo(), clip=None)
    (found,) = reshaped([step(values)], ReplaySettings(weights={"a": 1.0, "b": 1.0, "metric": 0.0}, pipeline=pipeline))
    weights = PromptWeigher.load(adapter).by_name(PROMPTS[::2])
    expected = torch.stack([weights["a"], weights["b"]], dim=1).flatten()
    assert_close(found.scores, expected)
    assert not torch.equal(expected[:2], expected[2:])
    other = ReplaySettings(weights={"a": 1.0, "b": 0.0, "metric": 1.0}, pipeline=pipeline)
    with pytest.raises(AlignError, match="was trained for the objectives b, a"):
        reshaped([step(values)], other)
