"""Which parts of a network are its blocks."""

from __future__ import annotations

from types import ModuleType

import pytest
from torch import nn

from align.engine.blocks import COMPILED_BY, SHARDED_BY, find_blocks

EXPECTED = {
    "sd3": ({"JointTransformerBlock": 2}, {"JointTransformerBlock": 2}),
    "flux": ({"FluxTransformerBlock": 1, "FluxSingleTransformerBlock": 2},) * 2,
    # One down block with one residual and one transformer block, a second one and the middle with residual blocks, an
    # up block as a whole; compiled are the transformer blocks: one down, one in the middle, two up.
    "unet": (None, {"BasicTransformerBlock": 4}),
    "llama": ({"LlamaDecoderLayer": 2},) * 2,
    "qwen": ({"Qwen2DecoderLayer": 2},) * 2,
}


def counts(blocks: list[nn.Module]) -> dict[str, int]:
    names = [type(block).__name__ for block in blocks]
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_blocks_of_the_libraries_networks(networks: ModuleType, kind: str, adapter: str):
    module = networks.KINDS[kind].policy(adapter).module
    sharded, compiled = EXPECTED[kind]
    if sharded is not None:
        assert counts(find_blocks(module, SHARDED_BY)) == sharded
    assert counts(find_blocks(module, COMPILED_BY)) == compiled


def test_a_unets_residual_blocks_are_spread_too_and_nothing_twice(networks: ModuleType):
    module = networks.KINDS["unet"].policy("full").module
    blocks = find_blocks(module, SHARDED_BY)
    assert counts(blocks)["ResnetBlock2D"] == 4
    assert counts(blocks)["CrossAttnUpBlock2D"] == 1
    inside = [id(layer) for block in blocks for layer in block.modules()]
    assert len(inside) == len(set(inside))
    spread = sum(weight.numel() for block in blocks for weight in block.parameters())
    assert spread > 0.8 * sum(weight.numel() for weight in module.parameters())


def test_a_network_of_ones_own_is_taken_apart_by_its_lists():
    """Lists of one module, or of modules of different classes, are no repeated blocks; a list inside a block is its."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    net = nn.Module()
    net.blocks = nn.ModuleList([Block(), Block(), Block()])
    net.single = nn.ModuleList([nn.Linear(2, 2)])
    net.mixed = nn.ModuleList([nn.Linear(2, 2), nn.Tanh()])
    assert find_blocks(net, SHARDED_BY) == list(net.blocks)
    assert find_blocks(nn.Linear(2, 2), SHARDED_BY) == []
