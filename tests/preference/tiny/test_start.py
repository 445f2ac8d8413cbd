"""The weights that training starts from: heads that look back, layers that find their like and copy."""

import math

import pytest
import torch

from preference.tiny import build, conversations, start


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_the_constants_prefer_their_distance(distance) -> None:
    """The rotary embedding written out: pair i of a token at place m is turned by m theta_i."""
    size, theta = 32, 10_000.0
    query, key = start.looking_back(distance, size, theta)

    def turned(vector, place):
        half = size // 2
        angles = torch.tensor([place * theta ** (-i / half) for i in range(half)])
        first, second = vector[:half], vector[half:]
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()])

    logits = [float(turned(query, 20) @ turned(key, 20 - back)) / math.sqrt(size) for back in range(20)]
    assert max(range(20), key=logits.__getitem__) == distance
    assert logits[distance] == pytest.approx(start.PEAK, rel=1e-4)


@pytest.fixture(scope="module")
def network():
    network = build.network(build.tokenizer(conversations.tokenizer_texts(200, seed=0)))
    network.set_attn_implementation("eager")
    return network


@torch.no_grad()
def test_heads_of_the_first_layer_look_back(network) -> None:
    ids = torch.randint(20, 300, (1, 16), generator=torch.Generator().manual_seed(0))
    attention = network(ids, output_attentions=True).attentions[0][0]
    for head, distance in enumerate(start.DISTANCES):
        assert int(attention[head, 12].argmax()) == 12 - distance
        assert float(attention[head, 12, 12 - distance]) > 0.5


def test_queries_are_keys_and_outputs_are_values(network) -> None:
    for layer in network.model.layers:
        assert torch.equal(layer.self_attn.o_proj.weight, layer.self_attn.v_proj.weight.T)
        assert torch.equal(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight)
