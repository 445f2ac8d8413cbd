"""The embedding of a direction: by hand, and in the network of every family."""

import math

import pytest
import torch
from torch import nn

from align.engine.adapters import Policy
from align.shaping.directions import from_integers
from diffusion.directions.embedding import DirectionEmbedding, fourier, told
from diffusion.directions.model import SteeredModel, told_to
from diffusion.directions.place import NAME, attach, time_embedding
from diffusion.directions.policy import SteeredPolicy, bare
from diffusion.models.locate import ModelError

from ..models.families import FAMILIES, adapted, disturb, probe
from ..models.miniature import miniature

ROOT = math.sqrt(0.5)
NAMES = ("good", "short")


def embedding(width: int, **changes) -> DirectionEmbedding:
    return DirectionEmbedding(2, width, **{"hidden": 6, "frequencies": 1, "seed": 0, **changes})


def test_what_the_layers_see():
    """v = (1, 1/2), one frequency: sines of pi and pi / 2 are 0 and 1, cosines -1 and 0; zeros are no direction."""
    directions = torch.tensor([[1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    assert fourier(directions[:1], 1).tolist() == [pytest.approx([0, 1, -1, 0], abs=1e-12)]
    seen = told(directions, 1)
    assert seen[0].tolist() == pytest.approx([1, 0.5, 0, 1, -1, 0, 0], abs=1e-12)
    assert seen[1].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert told(directions, 0).tolist() == [[1, 0.5, 0], [0, 0, 1]]


def test_e_of_v_by_hand():
    """W1 takes the first component, SiLU(1) = 1 / (1 + e^-1) = 0.7311, W2 doubles it."""
    part = embedding(1, hidden=1, frequencies=0)
    with torch.no_grad():
        part.first.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        part.second.weight.fill_(2.0)
    assert part(torch.tensor([[1.0, 0.0]])).item() == pytest.approx(2 * 0.7310586)
    assert part.objectives == 2


def test_rows_of_guided_passes_repeat_the_directions():
    part = embedding(3)
    with torch.no_grad():
        nn.init.normal_(part.second.weight, generator=torch.Generator().manual_seed(0))
        asked = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        with part.asked(asked):
            added = part.add_to(torch.zeros(4, 3))
            with part.switched_off():
                assert torch.equal(part.add_to(torch.ones(4, 3)), torch.ones(4, 3))
            with pytest.raises(ValueError, match="multiple of 2 rows"):
                part.add_to(torch.zeros(3, 3))
    assert torch.equal(added, part(asked).repeat(2, 1))
    assert torch.equal(part.add_to(torch.ones(4, 3)), torch.ones(4, 3))  # nobody asks


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_told(family):
    """Before training exactly the base, whatever is asked; gradients reach the embedding; the reference has none."""
    model = family.build()
    x, t, conditioning = probe(model)
    with torch.no_grad():
        base = model.predict(model.network, x, t, conditioning)
        guided = model.predict(model.network, x, t, conditioning, 3.0)
    policy = SteeredPolicy(adapted(model), embedding(time_embedding(model.network)[1]), NAMES)
    steered = SteeredModel(model=model, embedding=policy.embedding)
    vectors = [(100, 0), (0, 100), (71, 71), (80, 60)]
    asking = told_to(conditioning, torch.stack([from_integers(vector) for vector in vectors]))

    before = steered.predict(policy.network, x, t, asking)
    assert torch.equal(before, base)
    assert torch.equal(steered.predict(policy.network, x, t, asking, 3.0), guided)
    before.square().mean().backward()
    assert policy.embedding.second.weight.grad is not None
    assert policy.embedding.second.weight.grad.abs().max() > 0
    assert {name for name in policy.state_dict() if name.startswith(NAME)} == {
        f"{NAME}.{layer}.{kind}" for layer in ("first", "second") for kind in ("weight", "bias")
    }

    disturb(policy)
    with torch.no_grad():
        after = steered.predict(policy.network, x, t, asking)
        none = steered.predict(policy.network, x, t, conditioning)
        assert not torch.allclose(after, none)
        alone = steered.predict(policy.network, x[1:2], t[1:2], asking.select([1]))
        assert torch.allclose(alone, after[1:2], atol=1e-4)
        twice = SteeredModel(model=model, embedding=policy.embedding, guidance=2.0)
        assert torch.allclose(twice.predict(policy.network, x, t, asking), 2 * after - none, atol=1e-4)
        with policy.reference() as network:
            assert torch.equal(steered.predict(network, x, t, asking), base)


def test_the_reference_of_full_training_is_the_base_model():
    model = miniature()
    x, t, conditioning = probe(model)
    with torch.no_grad():
        base = model.predict(model.network, x, t, conditioning)
        policy = SteeredPolicy(Policy.full(model.network, keep_reference=True), embedding(16), NAMES)
        disturb(policy)
        asking = told_to(conditioning, torch.full((4, 2), ROOT))
        steered = SteeredModel(model=model, embedding=policy.embedding)
        with policy.reference() as network:
            assert torch.equal(steered.predict(network, x, t, asking), base)
        assert not torch.equal(steered.predict(policy.module, x, t, asking), base)
    with bare(policy):
        assert not any(name.startswith(NAME) for name in model.network.state_dict())
    assert any(name.startswith(NAME) for name in model.network.state_dict())


def test_networks_that_cannot_be_told():
    with pytest.raises(ModelError, match="Sequential embeds the time at no place that is known"):
        time_embedding(nn.Sequential(nn.Linear(2, 2)))
    model = miniature()
    attach(model.network, embedding(16))
    with pytest.raises(ValueError, match="has an embedding of directions already"):
        attach(model.network, embedding(16))
