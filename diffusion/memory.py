"""A guess of the memory that one process needs, from the sizes in a model folder. Reads headers only; torch-free.

Weights, gradients and optimiser states are counted exactly. Activations are a guess, see `diffusion.activations`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from align.config.shared import LoraConfig
from diffusion.activations import Kept, kept_by
from diffusion.arithmetic import counted_rollout, guidance_factor, micro_batch_rows
from diffusion.config import DiffusionRun, Sd3Model
from diffusion.inputs import keeps_reference
from diffusion.models.files import ModelFiles
from diffusion.models.locate import t5_tokens
from diffusion.models.targets import NETWORKS, LoraTargets
from diffusion.needs import lagged_copies, network_rows

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAM_AND_GRADIENT = 12  # float32: gradient, first and second moment

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process.

    Attributes:
        network: parameters of the network that is trained.
        trained: how many of them, or of their adapters, are trained.
        weights: all weights of the pipeline, adapters included.
        idle: those of them that wait in the computer's memory while the network trains beside them on an accelerator.
        optimizer: gradients, AdamW's moments.
        copies: moving average, lagged policy, copy of the base model.
        activations: guess of what the backward pass keeps.
    """

    network: int
    trained: int
    weights: int
    idle: int
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


def lora_parameters(shapes: Shapes, lora: LoraConfig, targets: LoraTargets) -> int:
    """Numbers in the adapters: rank * (inputs + outputs) for each adapted layer.

    A convolution's inputs are those of its kernel's every place; `all_linear` takes no convolutions.

    Args:
        shapes: of the network's weights.
        lora: rank and targets.
        targets: named sets of the family.
    """
    axes = (2,) if lora.targets == "all_linear" else (2, 3, 4, 5)
    adapted = (shape for name, shape in shapes.items() if len(shape) in axes and targets.adapts(lora.targets, name))
    return sum(lora.rank * (shape[0] + math.prod(shape[1:])) for shape in adapted)


def guess_memory(config: DiffusionRun, folder: Path, processes: int = 1) -> Memory | None:
    """Memory of a run on the model in `folder`; None where that cannot be known.

    It cannot where the folder does not hold the weights as safetensors, or nobody has counted the family's activations.
    """
    known = NETWORKS.get(config.model.kind)
    try:
        shapes = {} if known is None else read_shapes(folder / known.part)
        frozen = sum(count_parameters(read_shapes(folder / part)) for part in _text_encoders(config, folder))
        decoder = count_parameters(read_shapes(folder / "vae"))
        kept = _kept(config, folder)
    except (OSError, KeyError, ValueError, StopIteration, struct.error):
        return None
    network = count_parameters(shapes)
    if known is None or kept is None or not network:
        return None
    lora, size = config.model.lora, BYTES[config.model.dtype]
    trained = network if lora is None else lora_parameters(shapes, lora, known.targets)
    idle = size * frozen + 4 * decoder
    return Memory(
        network=network,
        trained=trained,
        weights=(4 * network if lora is None else size * network + 4 * trained) + idle,
        idle=idle if config.model.offload == "idle" else 0,
        optimizer=ADAM_AND_GRADIENT * trained,
        copies=4 * (_copies(config) * trained + (network if lora is None and keeps_reference(config) else 0)),
        activations=_activations(config, micro_batch_rows(config, processes), kept),
    )


def _kept(config: DiffusionRun, folder: Path) -> Kept | None:
    known = NETWORKS.get(config.model.kind)
    if known is None:
        return None
    return kept_by(config.model, ModelFiles.read(folder, known.part), config.rollout.resolution)


def _text_encoders(config: DiffusionRun, folder: Path) -> list[str]:
    """Folders of the text encoders that are loaded: not of one whose part of the context is 0 tokens long."""
    left_out = isinstance(config.model, Sd3Model) and not t5_tokens(config.model.path, config.model.max_sequence_length)
    found = [path.name for path in folder.glob("text_encoder*") if path.is_dir()]
    return [name for name in found if not (left_out and name == "text_encoder_3")]


def _copies(config: DiffusionRun) -> int:
    return (config.training.ema is not None) + lagged_copies(config)


def _activations(config: DiffusionRun, pictures: int, kept: Kept) -> int:
    """Of all rows that go through the network at once; twice in 32-bit numbers."""
    rollout = counted_rollout(config)
    rows = pictures * network_rows(config) * guidance_factor(rollout.guidance_scale)
    wide = 2 if config.training.mixed_precision == "no" else 1
    return rows * wide * (kept.checkpointed if config.training.gradient_checkpointing else kept.whole)
