"""A model's own text encoder as an encoder of prompts, and whole tiny runs whose prompts are weighed by an adapter."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.adapter.files import save_adapter
from align.adapter.record import AdapterRecord
from align.config.errors import ConfigError
from align.config.load import check_config
from align.config.shaping import AdapterWeights
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.shaping.adapter import PreferenceAdapter
from align.shaping.normaliser import Normaliser
from diffusion import commands
from diffusion.models import load_model
from diffusion.models.base import Conditioning
from diffusion.prompt_encoder import ModelEncoder, prompt_vectors, weigher_for

from .models.config import miniature_run


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch):
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weighed")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(miniature_run(folder).model)


@pytest.fixture(scope="module")
def adapter(folder, model):
    """An adapter of random weights, so that prompts differ, saved for two rewards and this model's text encoder."""
    encoder = ModelEncoder(model)
    size = encoder(["a"]).shape[1]
    torch.manual_seed(0)
    network = PreferenceAdapter(size, 2, hidden_size=8)
    torch.nn.init.normal_(network.out.weight, std=2.0)
    record = AdapterRecord(
        objectives=("contrast", "brightness"),  # another order than the run's: names decide
        encoder={"kind": "image_model", "config": "demo/awm_tiny"},
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint(),
        embedding_size=size,
        hidden_size=8,
        temperature=1.0,
        target={"normaliser": "none"},
    )
    return save_adapter(folder / "adapter", network.state_dict(), Normaliser.fitted(torch.zeros(1, 2), "none"), record)


def weighed_run(folder, adapter, **changes):
    config = miniature_run(folder)
    rewards = (RewardConfig(function="brightness"), RewardConfig(function="contrast", weight=2.0))
    pipeline = replace(config.pipeline, weights=AdapterWeights(path=str(adapter), **changes))
    return replace(config, rewards=rewards, pipeline=pipeline)


def test_the_pooled_vector_or_the_mean_of_the_states():
    """Pooled where there is one; else the mean over the tokens of the mask, (1 + 3)/2; else over all, (1 + 3 + 8)/3."""
    states = torch.tensor([[[1.0], [3.0], [8.0]]])
    assert prompt_vectors(Conditioning({"embeddings": states, "pooled": torch.tensor([[7.0]])})).item() == 7.0
    assert prompt_vectors(Conditioning({"embeddings": states, "mask": torch.tensor([[1, 1, 0]])})).item() == 2.0
    assert prompt_vectors(Conditioning({"embeddings": states})).item() == 4.0


def test_a_models_encoder(folder, model):
    encoder = ModelEncoder(model)
    vectors = encoder(["a red circle", "two blue squares", "a red circle"])
    assert_close(vectors, model.encode(["a red circle", "two blue squares", "a red circle"])["pooled"].float())
    assert torch.equal(vectors[0], vectors[2])
    assert not torch.equal(vectors[0], vectors[1])
    assert encoder.fingerprint() == ModelEncoder(load_model(miniature_run(folder).model)).fingerprint()
    other = load_model(miniature_run(folder).model)
    with torch.no_grad():
        list(other.pipeline.text_encoder.parameters())[-1].flatten()[0] += 1.0
    assert encoder.fingerprint() != ModelEncoder(other).fingerprint()


def test_a_run_learns_from_the_weights_of_its_prompts(folder, adapter, model):
    """Two steps: the log holds the mean of the weights that the adapter gives to the prompts of each step."""
    config = weighed_run(folder, adapter)
    check_config(config)
    done = commands.train(config)
    weigher = weigher_for(config, model)
    for line in map(json.loads, (done / "metrics.jsonl").read_text().splitlines()):
        if line["step"] == 0:
            continue
        rows = [
            json.loads(row) for row in (done / "samples" / f"step_{line['step']:06d}.jsonl").read_text().splitlines()
        ]
        weights = weigher.weights_for([row["prompt"] for row in rows])
        assert len({row["prompt"] for row in rows}) == 2
        assert len(weights.unique(dim=0)) == 2
        assert line["weights/contrast"] == pytest.approx(weights[:, 0].mean().item(), rel=1e-5)
        assert line["weights/brightness"] == pytest.approx(weights[:, 1].mean().item(), rel=1e-5)
        for row, (contrast, brightness) in zip(rows, weights.tolist(), strict=True):
            rewards = row["rewards"]
            expected = contrast * rewards["contrast"] + brightness * rewards["brightness"]
            assert row["score"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_adapter_of_other_objectives_is_refused_before_a_model_is_loaded(folder, adapter):
    config = weighed_run(folder, adapter)
    wrong = replace(config, rewards=(RewardConfig(function="brightness"), RewardConfig(function="sharpness")))
    with pytest.raises(ConfigError, match=r"trained for the objectives contrast, brightness; .* brightness, sharpness"):
        check_config(wrong)
    metric = replace(config, rewards=(*config.rewards, RewardConfig(function="sharpness", weight=0.0)))
    check_config(metric)
    negative = tuple(replace(reward, weight=-1.0) for reward in config.rewards)
    with pytest.raises(ConfigError, match="an adapter's weights are shares of 1"):
        check_config(replace(config, rewards=negative))
    with pytest.raises(ConfigError, match="expected an adapter at"):
        check_config(weighed_run(folder, folder / "nothing"))


def test_an_adapter_of_another_encoder_is_refused(folder, adapter, model):
    config = weighed_run(folder, adapter)
    assert weigher_for(miniature_run(folder), model) is None
    other = load_model(config.model)
    with torch.no_grad():
        list(other.pipeline.text_encoder.parameters())[-1].flatten()[0] += 1.0
    with pytest.raises(AlignError, match="was trained on vectors of the text encoder"):
        weigher_for(config, other)
