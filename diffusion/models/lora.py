"""LoRA weights in the file format of diffusers: one safetensors file, rank and alpha in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusion.models.locate import ModelError

if TYPE_CHECKING:
    from peft import LoraConfig

    from align.engine.adapters import Policy

FILE = "pytorch_lora_weights.safetensors"


def save_lora(policy: Policy, folder: Path, part: str = "transformer", dtype: torch.dtype = torch.float32) -> Path:
    """Write the adapter for `pipe.load_lora_weights(folder)`.

    Rank, alpha and the adapted layers go into the header; without them a reader takes alpha = rank.

    Args:
        policy: a policy made by `Policy.lora`, with the weights to save in it.
        folder: an existing folder.
        part: the pipeline's component that the adapter belongs to.
        dtype: of the written weights.
    """
    from safetensors.torch import save_file

    adapters: dict[str, LoraConfig] = getattr(policy.module, "peft_config")  # noqa: B009 - set by peft at run time
    (config,) = adapters.values()
    tensors = {name: weight.to("cpu", dtype).contiguous() for name, weight in adapter_weights(policy).items()}
    settings = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": sorted({name.rsplit(".lora_", 1)[0] for name in tensors}),
    }
    header = json.dumps({f"{part}.{key}": value for key, value in settings.items()})
    path = folder / FILE
    save_file(
        {f"{part}.{name}": tensor for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt", "lora_adapter_metadata": header},
    )
    return path


def adapter_weights(policy: Policy) -> dict[str, Tensor]:
    """The adapter's weights by stable name, without whatever is trained beside it."""
    return {name: weight for name, weight in policy.state_dict().items() if ".lora_" in name}


def is_lora_folder(folder: Path) -> bool:
    """Whether `save_lora` (or diffusers) has written an adapter here."""
    return (folder / FILE).is_file()


def load_lora(folder: Path, policy: Policy) -> None:
    """Inverse of `save_lora`: put a saved adapter into a policy with an adapter of the same rank on the same layers.

    Raises:
        ModelError: the file holds other layers or other shapes.
    """
    from safetensors.torch import load_file

    # The first word is the pipeline's component, `transformer` or `unet`.
    saved = {name.partition(".")[2]: tensor for name, tensor in load_file(folder / FILE).items()}
    ours = {name: tuple(weight.shape) for name, weight in adapter_weights(policy).items()}
    theirs = {name: tuple(weight.shape) for name, weight in saved.items()}
    if ours != theirs:
        differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise ModelError(
            f"{folder / FILE} is an adapter of another kind: {len(differing)} weights differ, such as {differing[0]} "
            f"({theirs.get(differing[0], 'absent')} in the file, {ours.get(differing[0], 'absent')} here).",
            way_out="Set model.lora.rank and model.lora.targets to those of the file.",
        )
    policy.load_state_dict({**policy.state_dict(), **saved})
