"""A guess of the memory that one process needs, from the sizes in a model folder. Reads headers only; torch-free.

Weights, gradients and optimiser states are counted exactly. Activations are a guess: what a layer of the Llama kind
keeps for its backward pass, for as many tokens as a micro-batch can have. Logits are not in it: they come in chunks.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from preference.arithmetic import most_tokens
from preference.config import PreferenceRun
from preference.models.locate import locate, read_config
from preference.models.targets import adapts

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTISED = {"4bit": 0.52, "8bit": 1.0}
"""Bytes of a quantised number; NF4 with its doubly quantised scales, arXiv:2305.14314, section 3."""
ADAM_AND_GRADIENT = 12  # float32: gradient, first and second moment

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process.

    Attributes:
        network: parameters of the network.
        trained: how many of them, or of their adapters, are trained.
        weights: all weights, adapters included.
        optimizer: gradients, AdamW's moments.
        copies: moving average, frozen copy of the reference.
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


def guess_memory(config: PreferenceRun, processes: int = 1) -> Memory | None:
    """Memory of a run; None where the weights are not in a local folder as safetensors."""
    model, training = config.model, config.training
    try:
        source = locate(model.path)
        if source.folder is None or source.gguf:
            return None
        shapes, settings = read_shapes(source.folder), read_config(source)
        kept = kept_numbers(settings, checkpointed=training.gradient_checkpointing)
    except (AlignError, OSError, KeyError, ValueError, struct.error):
        return None
    network = sum(math.prod(shape) for shape in shapes.values())
    trained = network if model.lora is None else lora_parameters(shapes, model.lora.rank, model.lora.targets)
    size = BYTES[model.dtype] if model.quantization is None else QUANTISED[model.quantization]
    copies = (training.ema is not None) * trained + (config.reference.keep_copy and model.lora is None) * network
    width = 4 if training.mixed_precision == "no" and model.dtype == "float32" else 2
    return Memory(
        network=network,
        trained=trained,
        weights=4 * network if model.lora is None else round(size * network) + 4 * trained,
        optimizer=ADAM_AND_GRADIENT * trained,
        copies=4 * copies,
        activations=width * kept * most_tokens(config, processes),
    )


def lora_parameters(shapes: Shapes, rank: int, targets: str | tuple[str, ...]) -> int:
    """Numbers in the adapters: rank * (inputs + outputs) for each adapted layer."""
    matrices = (shape for name, shape in shapes.items() if len(shape) == 2 and adapts(targets, name))
    return sum(rank * sum(shape) for shape in matrices)


def kept_numbers(settings: Mapping[str, Any], *, checkpointed: bool) -> int:
    """Numbers that the backward pass keeps for one token, of a model with these settings (Any: of transformers).

    A layer of the Llama kind keeps the inputs of its two norms, queries, keys, values and what is attended, gate and
    up. Twice a normalised input and that times the norm's weight, the activated gate and the product with up follow
    from these (`preference.layout.recipes`): one layer at a time has them as well. Recomputed, a layer keeps its input,
    and one at a time all of that.

    Raises:
        KeyError: the settings name no width or no number of layers.
    """
    settings = settings.get("text_config", settings)
    width = int(settings.get("hidden_size") or settings["n_embd"])
    layers = int(settings.get("num_hidden_layers") or settings["n_layer"])
    heads = int(settings.get("num_attention_heads") or settings["n_head"])
    head = int(settings.get("head_dim") or width // heads)
    groups = int(settings.get("num_key_value_heads") or heads)
    inner = int(settings.get("intermediate_size") or 4 * width)
    layer, again = 2 * width + head * (2 * heads + 2 * groups) + 2 * inner, 4 * width + 2 * inner
    return layers * (width if checkpointed else layer) + checkpointed * layer + again
