"""Names and alphas of exported adapters, on matrices small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from diffusion.export.keys import LoraLayer, diffusers_with_alpha, kohya_flux, kohya_unet, layers_of, stacked


def layer(rank: int, inputs: int, outputs: int, alpha: float, seed: int = 0) -> LoraLayer:
    source = torch.Generator().manual_seed(seed)
    return LoraLayer(
        torch.randn(rank, inputs, generator=source, dtype=torch.float64),
        torch.randn(outputs, rank, generator=source, dtype=torch.float64),
        alpha,
    )


def update(adapter: LoraLayer) -> torch.Tensor:
    """What a program adds to the layer's weight."""
    return adapter.alpha / adapter.rank * adapter.up @ adapter.down


def test_pairs_are_found_and_odd_weights_refused():
    down, up = torch.zeros(2, 3), torch.zeros(4, 2)
    (found,) = layers_of({"a.to_q.lora_A.weight": down, "a.to_q.lora_B.weight": up}, 8.0).items()
    assert found[0] == "a.to_q"
    assert found[1].alpha == 8.0
    assert found[1].rank == 2
    with pytest.raises(ValueError, match=r"a\.to_k\.lora_A"):
        layers_of({"a.to_k.lora_A.weight": down}, 8.0)
    with pytest.raises(ValueError, match="others"):
        layers_of({"a.bias": down}, 8.0)


def test_names():
    """A U-Net's dots become underscores; a transformer keeps its dots; both carry the alpha as one number."""
    adapter = layer(2, 3, 4, 8.0)
    unet = kohya_unet({"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": adapter})
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert set(unet) == {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"}
    assert unet[f"{name}.alpha"] == 8
    assert unet[f"{name}.alpha"].shape == ()
    transformer = diffusers_with_alpha({"transformer_blocks.0.attn.to_q": adapter})
    name = "transformer.transformer_blocks.0.attn.to_q"
    assert set(transformer) == {f"{name}.lora_A.weight", f"{name}.lora_B.weight", f"{name}.alpha"}


def test_a_stack_adds_what_its_parts_add():
    """Parts of rank 2 with alpha 4 (scale 2), a part without adapter: rank 4, alpha 8, the middle rows stay zero."""
    first, last = layer(2, 3, 4, 4.0, 1), layer(2, 3, 5, 4.0, 2)
    whole = stacked([(first, 4), (None, 6), (last, 5)])
    assert whole.rank == 4
    assert whole.alpha == 8.0
    expected = torch.cat([update(first), torch.zeros(6, 3, dtype=torch.float64), update(last)])
    assert_close(update(whole), expected)
    with pytest.raises(ValueError, match="one alpha / rank"):
        stacked([(first, 4), (layer(2, 3, 5, 5.0), 5)])


def test_flux_layers_are_stacked_and_unknown_ones_refused():
    """A single block's linear1 is [q; k; v; mlp], a double block's projection keeps its own rank and alpha."""
    sizes = {
        "transformer_blocks.1.attn.to_out.0": 4,
        **{f"single_transformer_blocks.0.attn.to_{n}": 4 for n in "qkv"},
        "single_transformer_blocks.0.proj_mlp": 16,
    }
    out = layer(2, 4, 4, 4.0)
    values = {f"single_transformer_blocks.0.attn.to_{n}": layer(2, 4, 4, 4.0, k) for k, n in enumerate("qv")}
    tensors = kohya_flux({"transformer_blocks.1.attn.to_out.0": out, **values}, sizes)
    assert tensors["lora_unet_double_blocks_1_img_attn_proj.lora_up.weight"] is out.up
    name = "lora_unet_single_blocks_0_linear1"
    rebuilt = LoraLayer(
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"], float(tensors[f"{name}.alpha"])
    )
    q, v = (update(values[f"single_transformer_blocks.0.attn.to_{n}"]) for n in "qv")
    assert_close(update(rebuilt), torch.cat([q, 0 * q, v, q.new_zeros(16, 4)]))
    with pytest.raises(ValueError, match="x_embedder"):
        kohya_flux({"x_embedder": out}, {"x_embedder": 4})
