"""Layers that keep recipes: the same gradients, fewer numbers kept, and who is left alone."""

import contextlib
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.compilation import compile_blocks
from preference.layout import LAYOUTS, Group, layout_support, states_read
from preference.layout.lean import lean
from preference.layout.recipes import OPERATIONS, Recipe, pack
from preference.logprobs import score_tokens
from preference.logprobs.split import split_model

from ..miniatures import COMMON, VOCABULARY, miniature

FAMILIES = ["llama-tied", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "cohere", "granite", "gpt2"]


def ids(count, seed):
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def groups(seed=0):
    return [
        Group(prompt=ids(11, seed + 1), responses=(ids(3, seed + 2), ids(6, seed + 3))),
        Group(prompt=ids(2, seed + 4), responses=(ids(5, seed + 5), ids(1, seed + 6))),
    ]


def score(model, support, kind, seed=0):
    split, layout = split_model(model), LAYOUTS[kind](groups(seed))
    return score_tokens(states_read(split.trunk, layout, support), split.head, layout.labels).log_probs


def gradients(model, support, kind="shared", passes=1, half=False):
    """Of all trained weights, one backward pass after all forward passes."""
    model.zero_grad()
    torch.manual_seed(0)  # dropout
    with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
        loss = sum(score(model, support, kind, 50 * number).float().square().mean() for number in range(passes))
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def compare(model, tolerance=1e-10, **options):
    """With recipes and without: the same operations on the same numbers, whatever precision a norm computes in."""
    support = layout_support(split_model(model).trunk)
    assert support.lean_layers is not None
    ours = gradients(model, support, **options)
    expected = gradients(model, replace(support, lean_layers=None), **options)
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        largest = float(expected[name].abs().max())
        assert float((gradient - expected[name]).abs().max()) <= tolerance * largest + 1e-20, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_all_weights(name, dtype):
    """The last layer is narrow, too."""
    model = miniature(name, None).to(dtype)
    for kind in LAYOUTS:
        compare(model, 1e-10 if dtype == torch.float64 else 1e-6, kind=kind, passes=2)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters(dtype, half, dropout):
    """On frozen weights, which may be in half precision, and under autocast: rounded alike, so equal to rounding."""
    model = miniature("llama", spread=2.0).to(dtype)
    config = LoraConfig(rank=2, dropout=dropout)
    Policy.lora(model, config, ("q_proj", "v_proj", "gate_proj", "down_proj"), seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.05 if "lora_B" in name else 0.0
    model.train()
    compare(model, 1e-6, half=half)


def test_half_precision_by_autocast():
    compare(miniature("llama", spread=2.0).float(), 1e-6, half=True)


def test_recomputed_activations_are_left_alone():
    """A layer that is computed again keeps its input alone; recipes inside of it would be kept besides."""
    model = miniature("llama")
    policy = Policy.full(model)
    policy.enable_gradient_checkpointing()
    compare(model, passes=2)
    trunk = split_model(model).trunk
    assert counted(trunk, layout_support(trunk)) is None
    model.eval()
    assert counted(trunk, layout_support(trunk)) is not None


def counted(trunk, support):
    """Numbers that the layers keep and, besides, would keep without recipes; None = nobody asked for recipes."""
    layout = LAYOUTS["padded"]([Group(prompt=ids(5, 0), responses=(ids(4, 1),))])
    weights = {weight.untyped_storage().data_ptr() for weight in trunk.parameters()}
    kept, left_out = {}, {}

    def noted(tensor):
        packed = pack(tensor)
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            (left_out if isinstance(packed, Recipe) else kept)[place] = tensor.detach()
        return packed

    with lean(trunk, support.lean_layers, pack=noted):
        trunk(input_ids=layout.input_ids, use_cache=False)
    if not kept:
        return None
    sizes = [[tensor.untyped_storage().nbytes() for tensor in side.values()] for side in (kept, left_out)]
    return tuple(sum(found) // tensor_size(trunk) for found in sizes)


def tensor_size(trunk):
    return next(trunk.parameters()).element_size()


def test_numbers_by_hand():
    """A place in a layer of width 32, inner width 48, with 4 heads.

    kept: inputs of two norms and their roots, queries, keys, values and what is attended, the softmax's sums of four
    heads, gate and up:                                         2 (32 + 1) + 4 * 32 + 4 + 2 * 48 = 294
    left out: twice x / |x| and that times the weight, act(gate), the product:  4 * 32 + 2 * 48 = 224
    Both layers together: besides, cosines and sines of 8 numbers.
    """
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**COMMON, "num_key_value_heads": 4})
    trunk = split_model(transformers.AutoModelForCausalLM.from_config(config)).trunk
    support = layout_support(trunk)
    places = 9
    assert counted(trunk, support) == (places * (2 * 294 + 2 * 8), places * 2 * 224)
    # The probe counts results alone: not the sums, cosines and sines. Roots are results.
    assert support.lean_layers.share == pytest.approx(224 / (224 + 294 - 4), abs=0.01)


def test_a_second_backward_pass_through_the_same_graph():
    model = miniature("llama")
    trunk = split_model(model).trunk
    loss = states_read(trunk, LAYOUTS["shared"](groups()), layout_support(trunk)).square().sum()
    first = torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(trunk.parameters()))
    for once, again in zip(first, second, strict=True):
        assert torch.equal(once, again)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, list(trunk.parameters()))


def untouched(trunk):
    """No hooks, and no forward of an instance."""
    return not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in trunk.modules()
    )


class Broken(nn.Module):
    def forward(self, *_):
        raise KeyError("broken")


def test_nothing_stays_after_a_pass_or_an_error():
    model = miniature("llama")
    trunk = split_model(model).trunk
    support = layout_support(trunk)
    assert untouched(trunk)
    score(model, support, "shared")
    assert untouched(trunk)
    trunk.layers[1].mlp.act_fn = Broken()
    with pytest.raises(KeyError):
        score(model, support, "shared")
    assert untouched(trunk)
    weight = torch.ones(2, requires_grad=True)
    assert (weight * 2 * weight).grad_fn._saved_other is weight  # as nobody packs it


def refuse(tensor):
    raise AssertionError("packed")


def test_passes_without_gradient_and_compiled_layers_are_left_alone():
    trunk = split_model(miniature("llama")).trunk
    layers = layout_support(trunk).lean_layers
    with pytest.raises(AssertionError, match="packed"), lean(trunk, layers, pack=refuse):
        trunk(input_ids=ids(4, 0)[None], use_cache=False)
    with torch.no_grad(), lean(trunk, layers, pack=refuse):
        trunk(input_ids=ids(4, 0)[None], use_cache=False)
    with lean(trunk, layers):
        assert all(layer._forward_hooks for layer in trunk.layers)
    compile_blocks(trunk, backend="eager")
    with lean(trunk, layers):
        assert not any(layer._forward_hooks for layer in trunk.layers)


def test_frozen_networks_keep_nothing_in_the_first_place():
    assert layout_support(split_model(miniature("llama").requires_grad_(False)).trunk).lean_layers is None


def test_a_recipe_with_other_numbers_is_found(monkeypatch):
    monkeypatch.setitem(OPERATIONS, "SiluBackward0", lambda node: node._saved_self.sigmoid())
    assert layout_support(split_model(miniature("llama")).trunk).lean_layers is None
