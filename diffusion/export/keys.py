"""One adapter under the names of each program, **with its alpha**. Tensors in, tensors out.

    effective update of a layer = alpha / rank * up @ down,        down [rank, in], up [out, rank]

A program that finds no alpha takes alpha = rank, so a file without it is another adapter whenever the two differ (ours
by default: 64 and 32). Diffusers' own conversion to kohya's names writes alpha = rank; these functions do not use it.

Which names a program reads:

* kohya's sd-scripts, A1111: `lora_unet_<layer, dots as underscores>.lora_down.weight`, `.lora_up.weight`, `.alpha`;
  for FLUX the layers of the original repository, in which query, key and value (and in single blocks the
  feed-forward's first layer) are one matrix.
* ComfyUI: all of the above, and for transformers `transformer.<layer as in diffusers>.lora_A.weight`, `.lora_B.weight`,
  `.alpha` (`comfy/lora.py`, read in July 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LoraLayer:
    """The adapter of one layer.

    Attributes:
        down: A; for a convolution with its kernel's axes behind.
        up: B.
        alpha: the update is scaled by alpha / rank.
    """

    down: Float[Tensor, "rank in ..."]
    up: Float[Tensor, "out rank ..."]
    alpha: float

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return len(self.down)


Layers = Mapping[str, LoraLayer]
"""Layer by its name in diffusers."""


def layers_of(weights: Mapping[str, Tensor], alpha: float) -> dict[str, LoraLayer]:
    """Pair `<layer>.lora_A.weight` with `<layer>.lora_B.weight`.

    Args:
        weights: the adapter's weights by stable name, of `Policy.state_dict`.
        alpha: of all layers.

    Raises:
        ValueError: a weight without its partner, or one that is no LoRA weight.
    """
    downs = {name.removesuffix(".lora_A.weight"): w for name, w in weights.items() if name.endswith(".lora_A.weight")}
    ups = {name.removesuffix(".lora_B.weight"): w for name, w in weights.items() if name.endswith(".lora_B.weight")}
    if downs.keys() != ups.keys() or len(downs) + len(ups) != len(weights):
        known = {f"{layer}.lora_{side}.weight" for layer in downs.keys() & ups.keys() for side in "AB"}
        odd = sorted(set(weights) - known)
        raise ValueError(f"expected pairs of lora_A and lora_B weights, found {len(odd)} others, such as {odd[:3]}")
    return {layer: LoraLayer(down=down, up=ups[layer], alpha=alpha) for layer, down in downs.items()}


def diffusers_with_alpha(layers: Layers, part: str = "transformer") -> dict[str, Tensor]:
    """Names of diffusers with an alpha beside each layer: what ComfyUI reads for transformers."""
    tensors: dict[str, Tensor] = {}
    for layer, adapter in layers.items():
        name = f"{part}.{layer}"
        tensors[f"{name}.lora_A.weight"] = adapter.down
        tensors[f"{name}.lora_B.weight"] = adapter.up
        tensors[f"{name}.alpha"] = torch.tensor(float(adapter.alpha))
    return tensors


def kohya_unet(layers: Layers) -> dict[str, Tensor]:
    """kohya's names of a U-Net's layers, which are those of diffusers with underscores."""
    return _kohya({layer.replace(".", "_"): adapter for layer, adapter in layers.items()})


def _kohya(layers: Layers) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, adapter in layers.items():
        tensors[f"lora_unet_{layer}.lora_down.weight"] = adapter.down
        tensors[f"lora_unet_{layer}.lora_up.weight"] = adapter.up
        tensors[f"lora_unet_{layer}.alpha"] = torch.tensor(float(adapter.alpha))
    return tensors


# --- FLUX: layers that the original repository keeps as one matrix ---------------------------------------------------

_FLUX: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # block in diffusers, layer of the original, layers of diffusers whose outputs it stacks
    ("transformer_blocks", "img_attn_qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    ("transformer_blocks", "txt_attn_qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("transformer_blocks", "img_attn_proj", ("attn.to_out.0",)),
    ("transformer_blocks", "txt_attn_proj", ("attn.to_add_out",)),
    ("transformer_blocks", "img_mlp_0", ("ff.net.0.proj",)),
    ("transformer_blocks", "img_mlp_2", ("ff.net.2",)),
    ("transformer_blocks", "txt_mlp_0", ("ff_context.net.0.proj",)),
    ("transformer_blocks", "txt_mlp_2", ("ff_context.net.2",)),
    ("transformer_blocks", "img_mod_lin", ("norm1.linear",)),
    ("transformer_blocks", "txt_mod_lin", ("norm1_context.linear",)),
    ("single_transformer_blocks", "linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    ("single_transformer_blocks", "linear2", ("proj_out",)),
    ("single_transformer_blocks", "modulation_lin", ("norm.linear",)),
)
_FLUX_BLOCKS = {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"}


def kohya_flux(layers: Layers, out_features: Mapping[str, int]) -> dict[str, Tensor]:
    """kohya's names of a FLUX transformer's layers; layers that are one matrix there are stacked, exactly.

    Args:
        layers: the adapter.
        out_features: outputs of every linear layer of the network, by name: a stacked matrix has rows for layers
            without an adapter, too.

    Raises:
        ValueError: an adapter on a layer that kohya's format has no name for; names it.
    """
    named: dict[str, LoraLayer] = {}
    left = dict(layers)
    for block in sorted(
        {match[0] for layer in layers if (match := re.match(r"(?:single_)?transformer_blocks\.\d+", layer))}
    ):
        kind, number = block.rsplit(".", 1)
        for of_kind, original, parts in _FLUX:
            members = [f"{block}.{part}" for part in parts]
            if of_kind == kind and any(member in layers for member in members):
                stack = [(layers.get(member), out_features[member]) for member in members]
                named[f"{_FLUX_BLOCKS[kind]}_{number}_{original}"] = stacked(stack)
                for member in members:
                    left.pop(member, None)
    if left:
        raise ValueError(f"kohya's format has no name for the adapters of {sorted(left)[:5]} of a FLUX transformer")
    return _kohya(named)


def stacked(parts: Sequence[tuple[LoraLayer | None, int]]) -> LoraLayer:
    """The adapter of the matrix [W_1; W_2; ...] from the adapters of its parts, which all see the same input.

        down = [A_1; A_2; ...],    up = blockdiag(B_1, B_2, ...),    alpha = alpha_1 * (sum of ranks) / rank_1

    Args:
        parts: the adapter of each part, or None, and its number of outputs.

    Raises:
        ValueError: no part has an adapter, or their alpha / rank differ, which one alpha cannot express.
    """
    present = [adapter for adapter, _ in parts if adapter is not None]
    if not present:
        raise ValueError("expected an adapter on at least one of the parts, found none")
    if len(parts) == 1:
        return present[0]
    scales = {adapter.alpha / adapter.rank for adapter in present}
    if len(scales) > 1:
        raise ValueError(f"expected one alpha / rank for all parts of a stacked matrix, found {sorted(scales)}")
    down = torch.cat([adapter.down for adapter in present])
    up = down.new_zeros(sum(outputs for _, outputs in parts), len(down))
    row = column = 0
    for adapter, outputs in parts:
        if adapter is not None:
            up[row : row + outputs, column : column + adapter.rank] = adapter.up
            column += adapter.rank
        row += outputs
    return LoraLayer(down=down, up=up, alpha=scales.pop() * len(down))
