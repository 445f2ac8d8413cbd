"""A guess of the memory that one process needs, from the sizes in a model folder. Reads headers only; torch-free.

Weights, gradients and optimiser states are counted exactly. Activations are a guess: a transformer layer keeps about
34 bytes per token and channel in 16-bit numbers when attention scores are not stored (Korthikanti et al., "Reducing
Activation Recomputation in Large Transformer Models", arXiv:2205.05198, section 4), twice that in 32-bit; with gradient
checkpointing 2 bytes per token and channel, and one full layer at a time.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.shared import LoraConfig
from diffusion.arithmetic import (
    counted_rollout,
    guidance_factor,
    micro_batch_rows,
)
from diffusion.config import DiffusionRun
from diffusion.inputs import keeps_reference
from diffusion.models.locate import t5_tokens
from diffusion.models.targets import SD3
from diffusion.needs import lagged_copies, network_rows

KEPT_PER_LAYER = 34  # bytes per token and channel, 16-bit
KEPT_AT_CHECKPOINT = 2
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAM_AND_GRADIENT = 12  # float32: gradient, first and second moment
TEXT_TOKENS = 77  # CLIP

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process.

    Attributes:
        network: parameters of the network that is trained.
        trained: how many of them, or of their adapters, are trained.
        weights: all weights of the pipeline, adapters included.
        optimizer: gradients, AdamW's moments.
        copies: moving average, lagged policy, copy of the base model.
        activations: guess of what the backward pass keeps.
    """

    network: int
    trained: int
    weights: int
    optimizer: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.weights + self.optimizer + self.copies + self.activations


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the safetensors files in a folder, from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return shapes


def count_parameters(shapes: Shapes) -> int:
    """Numbers in all tensors."""
    return sum(math.prod(shape) for shape in shapes.values())


def lora_parameters(shapes: Shapes, lora: LoraConfig) -> int:
    """Numbers in the adapters: rank * (inputs + outputs) for each adapted layer."""
    adapted = (shape for name, shape in shapes.items() if len(shape) == 2 and SD3.adapts(lora.targets, name))
    return sum(lora.rank * (rows + columns) for rows, columns in adapted)


def guess_memory(config: DiffusionRun, folder: Path, processes: int = 1) -> Memory | None:
    """Memory of a run on the model in `folder`; None where the folder does not hold the weights as safetensors."""
    try:
        shapes = read_shapes(folder / "transformer")
        settings = _json(folder / "transformer" / "config.json")
        frozen = sum(count_parameters(read_shapes(folder / part)) for part in _frozen_parts(folder))
        decoder = count_parameters(read_shapes(folder / "vae"))
        tokens = _tokens(config, folder, settings)
    except (OSError, KeyError, ValueError, struct.error):
        return None
    network = count_parameters(shapes)
    if not network:
        return None
    lora = config.model.lora
    trained = network if lora is None else lora_parameters(shapes, lora)
    base = 4 * network if lora is None else BYTES[config.model.dtype] * network + 4 * trained
    return Memory(
        network=network,
        trained=trained,
        weights=base + BYTES[config.model.dtype] * frozen + 4 * decoder,
        optimizer=ADAM_AND_GRADIENT * trained,
        copies=4 * (_copies(config) * trained + (network if lora is None and keeps_reference(config) else 0)),
        activations=_activations(config, micro_batch_rows(config, processes), tokens, settings),
    )


def _frozen_parts(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("text_encoder*") if path.is_dir()]


def _copies(config: DiffusionRun) -> int:
    return (config.training.ema is not None) + lagged_copies(config)


def _tokens(config: DiffusionRun, folder: Path, settings: Mapping[str, Any]) -> int:
    """Tokens of one picture and its prompt."""
    autoencoder = _json(folder / "vae" / "config.json")
    pixels_per_latent = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    side = (
        settings["sample_size"] if config.rollout.resolution is None else config.rollout.resolution // pixels_per_latent
    )
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    clip = _json(tokenizer).get("model_max_length", TEXT_TOKENS) if tokenizer.is_file() else TEXT_TOKENS
    t5 = t5_tokens(config.model.path, config.model.max_sequence_length)
    return (side // settings["patch_size"]) ** 2 + min(clip, TEXT_TOKENS) + t5


def _activations(config: DiffusionRun, pictures: int, tokens: int, settings: Mapping[str, Any]) -> int:
    rollout = counted_rollout(config)
    rows = pictures * network_rows(config) * guidance_factor(rollout.guidance_scale)
    width = settings["num_attention_heads"] * settings["attention_head_dim"]
    layers = settings["num_layers"]
    wide = 2 if config.training.mixed_precision == "no" else 1
    kept = KEPT_PER_LAYER * layers
    if config.training.gradient_checkpointing:
        kept = KEPT_AT_CHECKPOINT * layers + KEPT_PER_LAYER
    return rows * tokens * width * kept * wide


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
