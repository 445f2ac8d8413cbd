"""The last layer at the read places only: the same losses and gradients, and who is left alone."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.compilation import compile_blocks
from preference.layout import LAYOUTS, Group, LastLayer, layout_support, states_read
from preference.layout.last_layer import narrowed
from preference.logprobs.split import split_model

from ..miniatures import COMMON, VOCABULARY, miniature
from .steps import compare, ids, pairs

LLAMA = ("mlp", "self_attn.q_proj", "self_attn.o_proj")
FAMILIES = {
    "llama-tied": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,  # norms of queries
    "gemma2": LLAMA,  # norms after attention and feed-forward
    "gemma3": LLAMA,
    "mistral": LLAMA,
    "cohere": LLAMA,  # attention and feed-forward side by side
    "gpt2": ("mlp", "attn.c_proj"),  # queries, keys and values of one product
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_losses_and_gradients_are_those_of_the_whole_layer(name):
    model = miniature(name, None)
    support = layout_support(split_model(model).trunk)
    layer = "h.1" if name == "gpt2" else "layers.1"
    assert support.last_layer == LastLayer(name=layer, parts=tuple(f"{layer}.{part}" for part in FAMILIES[name]))
    for kind in support.layouts:
        compare(model, kind, support, replace(support, last_layer=None))


@pytest.mark.parametrize("recomputed", [False, True])
def test_adapters_and_recomputed_activations(recomputed):
    """Two passes of other rows before the backward pass: each is computed again at its own places."""
    model = miniature("llama")
    Policy.lora(model, LoraConfig(rank=2), ("q_proj", "down_proj"), seed=0)
    policy = Policy.full(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.05 if "lora_B" in name else 0.0
    if recomputed:
        policy.enable_gradient_checkpointing()
    trunk = split_model(model).trunk
    support = layout_support(trunk)
    compare(model, "shared", support, replace(support, last_layer=None), seeds=(0, 50))
    layouts = [LAYOUTS["shared"](pairs(seed)) for seed in (0, 50)]
    activation, places = trunk.layers[1].mlp.act_fn, []
    activation.register_forward_hook(lambda _, args, out: places.append(len(args[0].flatten(0, -2))))
    hidden = [states_read(trunk, layout, support) for layout in layouts]
    sum(states.sum() for states in hidden).backward()
    once = [len(layout.read) for layout in layouts]
    assert places == (once + once[::-1] if recomputed else once)
    assert "forward" not in vars(trunk.layers[1])


def test_places_are_given_once():
    """A pair's two answers are predicted from the prompt's end: read twice, computed once."""
    group = Group(prompt=ids(4, 0), responses=(ids(2, 1), ids(3, 2)))
    layout = LAYOUTS["shared"]([group])
    assert layout.predictors.tolist() == [3, 4, 3, 6, 7]
    assert layout.read.tolist() == [3, 4, 6, 7]


class Trunk(nn.Module):
    """One block, and what stands behind it."""

    _no_split_modules = ("Block",)

    def __init__(self, mlp, behind):
        super().__init__()
        self.config = transformers.LlamaConfig(vocab_size=50, hidden_size=8, num_attention_heads=1)
        self.embedding = nn.Embedding(50, 8)
        self.block, self.behind = Block(mlp), behind

    def forward(self, input_ids, **_):
        hidden = self.behind(self.block(self.embedding(input_ids)))
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=hidden)


class Block(nn.Module):
    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden):
        return hidden + self.mlp(hidden)


class RunningSum(nn.Module):
    def forward(self, hidden):
        return hidden.cumsum(dim=1)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.Linear(8, 8)

    def forward(self, hidden):
        return self.experts(hidden)


@pytest.mark.parametrize(
    ("mlp", "behind", "found"),
    [
        (nn.Linear(8, 8), nn.Identity(), ("block.mlp",)),
        (RunningSum(), nn.Identity(), None),
        (nn.Linear(8, 8), RunningSum(), None),
        (Experts(), nn.Identity(), None),
    ],
    ids=["by places", "mixes places", "mixed behind it", "experts"],
)
def test_a_part_that_needs_other_places_is_left_alone(mlp, behind, found):
    last = layout_support(Trunk(mlp, behind)).last_layer
    assert (None if last is None else last.parts) == found


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (transformers.MixtralConfig(**COMMON, num_local_experts=2), ("self_attn.q_proj", "self_attn.o_proj")),
        (transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2), None),
    ],
    ids=["mixtral", "mamba"],
)
def test_experts_and_recurrent_layers(config, parts):
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    last = layout_support(split_model(model).trunk).last_layer
    assert (None if last is None else last.parts) == (parts and tuple(f"layers.1.{part}" for part in parts))


def test_compiled_layers_compute_every_place():
    trunk = split_model(miniature("llama")).trunk
    last = layout_support(trunk).last_layer
    compile_blocks(trunk, backend="eager")
    compiled = trunk.layers[1].forward
    with narrowed(trunk, last, torch.tensor([3])):
        assert trunk.layers[1].forward is compiled


def test_an_error_leaves_the_layer_as_it_was():
    trunk = split_model(miniature("llama")).trunk
    last = layout_support(trunk).last_layer
    with pytest.raises(TypeError), narrowed(trunk, last, torch.tensor([3])):
        trunk(input_ids="no ids")
    assert "forward" not in vars(trunk.layers[1])
