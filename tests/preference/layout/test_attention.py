"""Whole miniatures with attention in pieces: the same losses and gradients, and who computes attention whole."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.compilation import compile_blocks
from preference.layout import Group, layout_support, shared, states_read, support, visible
from preference.layout import pieces as pieces_module
from preference.layout.attention import PiecewiseMask, compiled, piecewise, same_as_torch
from preference.logprobs.split import split_model

from ..miniatures import miniature
from .steps import compare, ids, pairs

FAMILIES = ["llama", "llama-tied", "qwen2", "qwen2-window", "qwen3", "gemma", "gemma3", "mistral", "cohere", "gpt2"]


def whole(found):
    """Attention of all pairs of places."""
    return replace(found, pieces=False, last_layer=None)


@pytest.fixture
def made(monkeypatch):
    """Pieces of four places however small the row is; the masks that passes got, in their order."""
    masks = []

    def small(mask, tile=4, least=0):
        masks.append(piecewise(mask, tile=tile, least=least))
        return masks[-1]

    monkeypatch.setattr(support, "piecewise", small)
    return masks


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_and_gradients_are_those_of_the_whole_attention(name, made):
    model = miniature(name)
    found = layout_support(split_model(model).trunk)
    assert found.pieces
    for kind, row_length in (("packed", None), ("shared", None), ("shared", 64)):
        made.clear()
        compare(model, kind, found, whole(found), row_length=row_length)
        assert len(made) == len(found.windows)
        # two layers, and of the last one fewer pieces unless all have something that is read
        assert sum(len(mask.uses) for mask in made) == 2
        assert sum(sum(mask.uses) for mask in made) <= 2 * max(len(mask.pieces) for mask in made)


def test_float32_as_a_run_has_it(made):
    model = miniature("llama", spread=2.0).float()
    found = layout_support(split_model(model).trunk)
    compare(model, "shared", found, whole(found), tolerance=1e-5)
    assert sum(len(mask.uses) for mask in made) > 0


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_adapters_and_recomputed_activations(reentrant, made):
    """Two passes of other rows before the backward pass: each layer is computed again with its own pieces."""
    model = miniature("llama")
    Policy.lora(model, LoraConfig(rank=2), ("q_proj", "down_proj"), seed=0)
    policy = Policy.full(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.05 if "lora_B" in name else 0.0
    if reentrant is not None:
        policy.enable_gradient_checkpointing()
        switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        switch({"use_reentrant": reentrant})
        model.enable_input_require_grads()
    found = layout_support(split_model(model).trunk)
    made.clear()
    compare(model, "shared", found, whole(found), seeds=(0, 50))
    assert [len(mask.uses) for mask in made] == [2 if reentrant is None else 4] * 2


def test_the_last_layer_computes_the_pieces_that_are_read(made):
    """Prompt of 19, answers of 3 and 4, in pieces of four: 26 places are seven pieces, from place 18 on two."""
    trunk = split_model(miniature("llama")).trunk
    found = layout_support(trunk)
    made.clear()
    layout = shared([Group(prompt=ids(19, 0), responses=(ids(3, 1), ids(4, 2)))])
    assert layout.read.tolist() == [18, 19, 20, 22, 23, 24]
    states_read(trunk, layout, found)
    assert made[0].uses == [7, 2]
    states_read(trunk, layout, replace(found, last_layer=None))
    assert made[1].uses == [7, 7]


def test_rows_as_long_as_they_are_in_runs(monkeypatch):
    """Pieces of the usual width, in every layer; few scores are computed whole."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    trunk = split_model(miniature("llama").float()).trunk
    found, masks = layout_support(trunk), []
    monkeypatch.setattr(support, "piecewise", lambda mask: masks.append(piecewise(mask)) or masks[-1])
    groups = [Group(prompt=ids(130 + 10 * row, row), responses=(ids(70, 5), ids(60 - row, 6))) for row in range(2)]
    layout = shared(groups)
    with torch.no_grad():
        ours = states_read(trunk, layout, found)
        expected = states_read(trunk, layout, replace(found, pieces=False, last_layer=None))
        states_read(trunk, shared(groups[:1]), found)
        states_read(trunk, shared([Group(prompt=ids(100, 0), responses=(ids(9, 5), ids(9, 6)))]), found)
    assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert [type(mask) for mask in masks] == [PiecewiseMask, PiecewiseMask, Tensor]
    assert [len(mask.uses) for mask in masks[:2]] == [2, 0]


MASK = visible(shared([Group(prompt=ids(6, 0), responses=(ids(5, 1), ids(4, 2)))]))


def heads(count=2, width=15, dtype=torch.float32):
    return torch.randn(3, 1, count, width, 8, generator=torch.Generator().manual_seed(0)).to(dtype).unbind()


def test_the_mask_answers_for_itself():
    mask = piecewise(MASK, tile=4, least=0)
    ours = scaled_dot_product_attention(*heads(), attn_mask=mask)
    assert_close(ours, scaled_dot_product_attention(*heads(), attn_mask=MASK))
    assert mask.uses == [4]
    for other in (mask[:, :, :, :15], mask.float(), ~mask, mask.to(torch.bool, copy=True), mask.expand(2, 1, 15, 15)):
        assert type(other) is Tensor
    assert (mask.shape, mask.dtype, mask.device) == (MASK.shape, torch.bool, MASK.device)


def test_what_is_computed_whole():
    """Half precision, more heads than keys have, fewer queries, keys that are not dense, autocast: all as usual."""
    mask = piecewise(MASK, tile=4, least=0)
    query, key, value = heads(4)
    spread = torch.stack([key, key], dim=-1)[..., 0]
    cases = [
        (heads(dtype=torch.bfloat16), MASK, {}),
        ((query, key[:, :2], value[:, :2]), MASK, {"enable_gqa": True}),
        ((query, spread, value), MASK, {}),
        ((query[..., :4], key[..., :4], value), MASK, {}),
    ]
    for given, plain, options in cases:
        ours = scaled_dot_product_attention(*given, attn_mask=mask, **options)
        assert_close(ours, scaled_dot_product_attention(*given, attn_mask=plain, **options))
    with torch.autocast("cpu", torch.bfloat16):
        assert scaled_dot_product_attention(*heads(), attn_mask=mask).dtype == torch.bfloat16
    dropped = scaled_dot_product_attention(*heads(), mask, 0.5)
    assert bool(dropped.isfinite().all())
    assert mask.uses == []


def test_fewer_scores_or_tasks_than_pay(monkeypatch):
    """Two heads of 15 x 15: 450 scores."""
    for least, threads, used in ((450, 2, 1), (451, 2, 0), (450, 3, 0), (0, 3, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        mask = piecewise(MASK, tile=4, least=least)
        scaled_dot_product_attention(*heads(), attn_mask=mask)
        assert len(mask.uses) == used
    assert type(piecewise(MASK, tile=8)) is Tensor  # 15 places are less than two pieces
    assert piecewise(MASK.to("meta"), tile=4).device.type == "meta"


class Around(nn.Module):
    """A trunk that does something with its mask first."""

    def __init__(self, trunk, change):
        super().__init__()
        self.trunk, self.change, self.config = trunk, change, trunk.config

    def forward(self, attention_mask=None, **inputs):
        mask = None if attention_mask is None else self.change(attention_mask)
        return self.trunk(attention_mask=mask, **inputs)


def only_plain(mask):
    if type(mask) is not Tensor:
        raise TypeError("expected a tensor")
    return mask


def one_piece_less(mask):
    if isinstance(mask, PiecewiseMask):
        mask.pieces = mask.pieces[:-1]
    return mask


@pytest.mark.parametrize(
    ("change", "pieces"),
    [(lambda mask: mask, True), (torch.clone, False), (only_plain, False), (one_piece_less, False)],
    ids=["hands it on", "makes another", "refuses it", "computes something else"],
)
def test_who_gets_pieces(change, pieces):
    found = layout_support(Around(split_model(miniature("llama")).trunk, change))
    assert found.layouts == ("padded", "packed", "shared"), found.reasons
    assert found.pieces is pieces


@pytest.mark.parametrize(("name", "implementation"), [("llama", "eager"), ("gemma2", None), ("mamba", None)])
def test_other_attention_gets_none(name, implementation):
    assert not layout_support(split_model(miniature(name, implementation)).trunk).pieces


def test_half_precision_gets_none():
    assert not layout_support(split_model(miniature("llama").bfloat16()).trunk).pieces


def test_a_kernel_that_is_not_there_or_gives_other_gradients(monkeypatch):
    prove = same_as_torch.__wrapped__
    assert prove(torch.float32)
    monkeypatch.setattr(pieces_module, "_zeros", lambda like: torch.ones_like(like))
    assert not prove(torch.float32)
    monkeypatch.undo()
    monkeypatch.setattr(pieces_module, "_KERNEL", "_no_such_attention")
    assert not prove(torch.float32)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler itself
def test_compiled_layers_get_the_plain_mask(made):
    trunk = split_model(miniature("llama")).trunk
    found = layout_support(trunk)
    assert found.pieces
    assert not compiled(trunk)
    compile_blocks(trunk, backend="eager")
    assert compiled(trunk)
    made.clear()
    states_read(trunk, shared(pairs()), found)
    assert made == []


def test_nothing_of_it_stays_with_the_model(made):
    """Not after a pass, and not after one that raised."""
    model = miniature("llama")
    trunk = split_model(model).trunk
    before, expected = model.config.to_dict(), model(input_ids=ids(9, 0)[None]).logits
    found = layout_support(trunk)
    seen = []
    hook = trunk.layers[1].mlp.register_forward_hook(lambda *_: seen.append(trunk.config._attn_implementation) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        states_read(trunk, shared(pairs()), found)
    hook.remove()
    states_read(trunk, shared(pairs()), found)
    assert seen == ["sdpa"]
    assert model.config.to_dict() == before
    assert torch.equal(model(input_ids=ids(9, 0)[None]).logits, expected)
