"""Trained weights as transformers and peft read them, with the tokenizer beside them.

adapter      adapter_config.json, adapter_model.safetensors       PeftModel.from_pretrained(base, folder)
all weights  config.json, model.safetensors                       AutoModelForCausalLM.from_pretrained(folder)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from align.engine.lora import is_adapter_layer
from preference.models.quiet import quiet

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from preference.models.language_model import LanguageModel

ADAPTER = "adapter_model.safetensors"


def save(model: LanguageModel, folder: Path, policy: Policy) -> Path:
    """Write what was trained; inside `Policy.assembled`.

    An adapter on top of weights that another adapter was merged into would fit nothing on disk; then the whole model is
    written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_adapter = hasattr(policy.module, "peft_config")
    if has_adapter and not model.merged:
        _save_adapter(model, folder, policy)
    else:
        save_merged(model, folder, policy)
    model.tokenizer.save_pretrained(folder)
    return folder


def save_merged(model: LanguageModel, folder: Path, policy: Policy, dtype: torch.dtype | None = None) -> Path:
    """Write the whole model, with adapters folded into the weights; the network itself stays as it is.

    Args:
        model: the model.
        folder: where to.
        policy: its trained weights.
        dtype: of the written weights; None = as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = policy.module
    weights = merged_weights(network)
    if dtype is not None:
        weights = {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in weights.items()}
    with _as_plain(network), quiet():
        network.save_pretrained(folder, state_dict=weights)
    _write_dtype(folder, weights)
    return folder


@torch.no_grad()
def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """State of a network as it was without adapters, W + alpha / rank B A where it carries one."""
    state: dict[str, Tensor] = {
        name.replace(".base_layer", ""): value for name, value in network.state_dict().items() if ".lora_" not in name
    }
    for name, layer in network.named_modules():
        if is_adapter_layer(layer):
            adapted: Any = layer
            weight = state[f"{name}.weight"]
            state[f"{name}.weight"] = (weight.float() + adapted.get_delta_weight("default").float()).to(weight.dtype)
    return state


def _save_adapter(model: LanguageModel, folder: Path, policy: Policy) -> None:
    from safetensors.torch import save_file

    adapters: Mapping[str, Any] = getattr(policy.module, "peft_config")  # noqa: B009 - set by peft at run time
    (settings,) = (copy(entry) for entry in adapters.values())
    settings.base_model_name_or_path = model.base
    settings.task_type = "CAUSAL_LM"
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    tensors = {f"base_model.model.{name}": weight.cpu().contiguous() for name, weight in policy.state_dict().items()}
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})


@contextmanager
def _as_plain(network: Any) -> Iterator[None]:
    """transformers writes nothing but adapters while it knows of one."""
    marked = getattr(network, "_hf_peft_config_loaded", False)
    try:
        network._hf_peft_config_loaded = False
        yield
    finally:
        network._hf_peft_config_loaded = marked


def _write_dtype(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """transformers writes the number format of the network into config.json, not that of the written weights."""
    found = next((weight.dtype for weight in weights.values() if weight.is_floating_point()), None)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if found is not None and settings.get("dtype"):
        settings["dtype"] = str(found).removeprefix("torch.")
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
