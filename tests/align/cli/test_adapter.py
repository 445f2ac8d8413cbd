"""`align adapter`: weights of prompts as a table and as JSON, what was learnt, what is refused."""

import json

import pytest
import torch
from typer.testing import CliRunner

from align.adapter.files import save_adapter
from align.adapter.record import AdapterRecord
from align.cli import app
from align.encoders import load
from align.errors import AlignError
from align.shaping.adapter import PreferenceAdapter
from align.shaping.normaliser import Normaliser


class Lengths:
    name = "lengths"

    def __call__(self, texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def fingerprint(self):
        return "lengths"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An untrained adapter, which weighs alike; its encoder is a stub in place of MiniLM."""
    monkeypatch.setattr(load, "load_encoder", lambda config, device: Lengths())
    record = AdapterRecord(
        objectives=("good", "short"),
        encoder={"kind": "minilm"},
        encoder_name="lengths",
        encoder_fingerprint="lengths",
        embedding_size=2,
        hidden_size=4,
        temperature=1.0,
        target={"normaliser": "minmax"},
        report={"sentences": ["The prompts carry no signal."]},
    )
    scores = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    network = PreferenceAdapter(2, 2, hidden_size=4)
    return save_adapter(tmp_path / "run" / "adapter", network.state_dict(), Normaliser.fitted(scores, "minmax"), record)


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_weights_of_prompts(folder):
    table = invoke("adapter", folder.parent, "-p", "one", "-p", "another [prompt]")
    assert table.split() == [
        "good",
        "short",
        "prompt",
        "0.500",
        "0.500",
        "one",
        "0.500",
        "0.500",
        "another",
        "[prompt]",
    ]
    lines = invoke("adapter", folder, "-p", "one", "-p", "two", "--json").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"prompt": prompt, "weights": {"good": 0.5, "short": 0.5}} for prompt in ("one", "two")
    ]


def test_what_it_has_learnt(folder):
    told = invoke("adapter", folder)
    assert "objectives: good, short" in told
    assert "The prompts carry no signal." in told
    assert json.loads(invoke("adapter", folder, "--json"))["encoder_name"] == "lengths"


def test_no_adapter_there(tmp_path):
    with pytest.raises(AlignError, match="expected an adapter at"):
        invoke("adapter", tmp_path, "-p", "one")
