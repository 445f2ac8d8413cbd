"""A guess of what a forward pass keeps for the backward pass, family by family. Torch-free.

The bytes per layer were counted: what autograd saves of diffusers' own networks at their published sizes, all weights
trained, 16-bit, without the attention scores, which fused attention does not keep. The test counts again on smaller
networks. With gradient checkpointing a block keeps its input only, and one whole block at a time is recomputed.

| network | counted, bytes per token, channel and layer | guess |
|---|---|---|
| SD3.5 Large, 512 px | 62.2 | 62 |
| SD3.5 Medium, 512 px (13 of 24 layers attend twice) | 77.6 | 77.7 |
| FLUX.1, 512 px | 56.8 | 57 |
| Qwen-Image, 512 px | 62.2 | 62 |
| Sana 1.6B, 512 px, per token of the picture (256; the prompt's 300 are kept beside them) | 97.6 | 97.5 |
| the same, 1024 px | 89.4 | 89.6 |
| Stable Diffusion 1.5 and 2.1, 512 px, whole network | 1.03 GB | 0.98 GB |
| Stable Diffusion XL, 1024 px, whole network | 7.74 GB | 7.90 GB |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from diffusion.config.models import FluxModel, QwenImageModel, SanaModel, Sd3Model, SdxlModel, StableDiffusionModel
from diffusion.models.files import Json, ModelFiles
from diffusion.models.locate import t5_tokens

NUMBER = 2  # bytes
JOINT_LAYER, SECOND_ATTENTION = 62, 29  # bytes per token and channel
FLUX_LAYER = 57
SANA_LAYER, SANA_PROMPT = 87, 9  # per token of the picture, of the prompt
UNET_TRANSFORMER = 68  # bytes per latent pixel and channel
UNET_RESNET = (
    3 * NUMBER
)  # per latent pixel and channel that comes in or goes out: inputs of norm, activation, convolution


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes that one noised picture keeps, in 16-bit numbers.

    Attributes:
        whole: without gradient checkpointing.
        checkpointed: with it.
    """

    whole: int
    checkpointed: int


@singledispatch
def kept_by(model: Any, files: ModelFiles, resolution: int | None) -> Kept | None:
    """What one noised picture keeps (`Any`: the members of `Model`); None for a family that nobody has counted.

    Args:
        model: settings of the model.
        files: what its folder says.
        resolution: pixels, None for the model's own.

    Raises:
        KeyError, StopIteration: the folder's settings lack something.
    """
    return None


@kept_by.register
def _(model: Sd3Model, files: ModelFiles, resolution: int | None) -> Kept:
    network = files.network
    text = files.clip_tokens + t5_tokens(model.path, model.max_sequence_length)
    tokens = (files.side(resolution) // network["patch_size"]) ** 2 + text
    twice = len(network.get("dual_attention_layers") or ())
    layers = network["num_layers"]
    return _transformer(network, tokens, layers, JOINT_LAYER * layers + SECOND_ATTENTION * twice, JOINT_LAYER)


@kept_by.register
def _(model: FluxModel, files: ModelFiles, resolution: int | None) -> Kept:
    network = files.network
    tokens = (files.side(resolution) // 2) ** 2 + model.max_sequence_length
    layers = network["num_layers"] + network["num_single_layers"]
    return _transformer(network, tokens, layers, FLUX_LAYER * layers, FLUX_LAYER)


@kept_by.register
def _(model: QwenImageModel, files: ModelFiles, resolution: int | None) -> Kept:
    network = files.network
    tokens = (files.side(resolution) // 2) ** 2 + model.max_sequence_length
    return _transformer(network, tokens, network["num_layers"], JOINT_LAYER * network["num_layers"], JOINT_LAYER)


@kept_by.register
def _(model: SanaModel, files: ModelFiles, resolution: int | None) -> Kept:
    network = files.network
    width, layers = network["num_attention_heads"] * network["attention_head_dim"], network["num_layers"]
    tokens = (files.side(resolution) // network["patch_size"]) ** 2
    layer = width * (SANA_LAYER * tokens + SANA_PROMPT * model.max_sequence_length)
    return Kept(whole=layers * layer, checkpointed=layers * NUMBER * width * tokens + layer)


@kept_by.register
def _(model: StableDiffusionModel | SdxlModel, files: ModelFiles, resolution: int | None) -> Kept:
    blocks = list(unet_blocks(files.network, files.side(resolution)))
    return Kept(
        whole=sum(block.whole for block in blocks),
        checkpointed=sum(block.checkpointed for block in blocks) + max(block.whole for block in blocks),
    )


def unet_blocks(network: Json, side: int) -> Iterator[Kept]:
    """Every block of residual convolutions and every transformer layer of a U-Net.

    Args:
        network: settings of diffusers' `UNet2DConditionModel`.
        side: latent pixels along a side.
    """
    widths, repeats = network["block_out_channels"], network["layers_per_block"]
    depths = _per_level(network.get("transformer_layers_per_block", 1), len(widths))
    skips, width = [widths[0]], widths[0]
    for level, (kind, wide) in enumerate(zip(network["down_block_types"], widths, strict=True)):
        pixels = (side >> level) ** 2
        for _ in range(repeats):
            yield from _pair(pixels, width, wide, depths[level] if "CrossAttn" in kind else 0)
            width = wide
            skips.append(wide)
        skips += [wide] if level + 1 < len(widths) else []
    lowest = (side >> (len(widths) - 1)) ** 2
    yield from _pair(lowest, width, width, depths[-1])
    yield from _pair(lowest, width, width, 0)
    for level, kind in zip(reversed(range(len(widths))), network["up_block_types"], strict=True):
        pixels, wide = (side >> level) ** 2, widths[level]
        for _ in range(repeats + 1):
            yield from _pair(pixels, width + skips.pop(), wide, depths[level] if "CrossAttn" in kind else 0)
            width = wide


def _pair(pixels: int, inputs: int, outputs: int, layers: int) -> Iterator[Kept]:
    """Residual convolutions, and the transformer layers behind them."""
    yield Kept(whole=UNET_RESNET * pixels * (inputs + outputs), checkpointed=NUMBER * pixels * inputs)
    for _ in range(layers):
        yield Kept(whole=UNET_TRANSFORMER * pixels * outputs, checkpointed=NUMBER * pixels * outputs)


def _per_level(value: int | list[int], levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)


def _transformer(network: Json, tokens: int, layers: int, all_layers: int, one_layer: int) -> Kept:
    """Of a transformer whose layers are alike.

    Args:
        network: its settings.
        tokens: that a layer works on.
        layers: how many.
        all_layers: bytes per token and channel of all of them.
        one_layer: and of one.
    """
    numbers = tokens * network["num_attention_heads"] * network["attention_head_dim"]
    return Kept(whole=numbers * all_layers, checkpointed=numbers * (NUMBER * layers + one_layer))
