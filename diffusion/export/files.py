"""Write the weights of a policy for another program. Each format is one function in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from align.errors import AlignError
from diffusion.export.keys import Layers, diffusers_with_alpha, kohya_flux, kohya_unet, layers_of
from diffusion.models.lora import adapter_weights, save_lora

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from diffusion.models.pipeline import DiffusionPipelineModel


def export_diffusers(model: DiffusionPipelineModel, policy: Policy, folder: Path, dtype: torch.dtype) -> Path:
    """As diffusers reads it: an adapter for `load_lora_weights`, or after full fine-tuning the pipeline."""
    if not is_adapter(policy):
        return export_merged(model, policy, folder, dtype)
    return save_lora(policy, folder, model.part, dtype)


def export_comfyui(model: DiffusionPipelineModel, policy: Policy, folder: Path, dtype: torch.dtype) -> Path:
    """An adapter for ComfyUI's LoRA loader: kohya's names for a U-Net, diffusers' with alpha for a transformer."""
    layers = _layers(policy)
    tensors = kohya_unet(layers) if model.part == "unet" else diffusers_with_alpha(layers, model.part)
    return _write(folder / "comfyui_lora.safetensors", tensors, layers, dtype)


def export_kohya(model: DiffusionPipelineModel, policy: Policy, folder: Path, dtype: torch.dtype) -> Path:
    """An adapter as kohya's sd-scripts write it, for U-Nets and FLUX.

    Raises:
        AlignError: a family for which these scripts have no names that we know.
    """
    layers = _layers(policy)
    write = _KOHYA.get(model.pipeline_class)
    if write is None:
        raise AlignError(
            f"kohya's names are known for {', '.join(_KOHYA)}; this model is a {model.pipeline_class}.",
            "Export with --format comfyui or diffusers.",
        )
    return _write(folder / "kohya_lora.safetensors", write(layers, model.network), layers, dtype)


def export_merged(model: DiffusionPipelineModel, policy: Policy, folder: Path, dtype: torch.dtype) -> Path:
    """The whole pipeline with the adapter added into its weights, for `from_pretrained(folder)`.

    The sum is taken in float32 and rounded once. The model cannot be trained on afterwards.
    """
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    network = cast("Any", model.network)  # Any: the mixins of diffusers' networks have no common type
    if is_adapter(policy):
        network.float()
        for layer in network.modules():
            if hasattr(layer, "lora_A") and hasattr(layer, "merge"):
                layer.merge(safe_merge=True)
        recurse_remove_peft_layers(network)
        del network.peft_config
        network._hf_peft_config_loaded = False
    network.to(dtype)
    model.pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


FORMATS: Mapping[str, Callable[..., Path]] = {
    "diffusers": export_diffusers,
    "comfyui": export_comfyui,
    "kohya": export_kohya,
    "merged": export_merged,
}


def is_adapter(policy: Policy) -> bool:
    """Whether low-rank adapters are trained, not all weights."""
    return hasattr(policy.module, "peft_config")


def _layers(policy: Policy) -> Layers:
    if not is_adapter(policy):
        raise AlignError(
            "this run trained all weights, so there is no adapter to export.",
            "Export the whole pipeline with --format merged.",
        )
    (config,) = cast("Any", policy.module).peft_config.values()
    return layers_of(adapter_weights(policy), float(config.lora_alpha))


def _out_features(network: nn.Module) -> dict[str, int]:
    """Outputs of every linear layer, adapted ones under their own name."""
    found = {name: layer.out_features for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    return found | {name.removesuffix(".base_layer"): size for name, size in found.items()}


_KOHYA: Mapping[str, Callable[[Layers, nn.Module], dict[str, Tensor]]] = {
    "StableDiffusionPipeline": lambda layers, network: kohya_unet(layers),
    "StableDiffusionXLPipeline": lambda layers, network: kohya_unet(layers),
    "FluxPipeline": lambda layers, network: kohya_flux(layers, _out_features(network)),
}


def _write(path: Path, tensors: Mapping[str, Tensor], layers: Layers, dtype: torch.dtype) -> Path:
    from safetensors.torch import save_file

    first = next(iter(layers.values()))
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(first.rank),
        "ss_network_alpha": f"{first.alpha:g}",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # An alpha is one number: it keeps float32, whatever the matrices are rounded to.
    rounded = {
        name: tensor.detach().to("cpu", torch.float32 if name.endswith(".alpha") else dtype).contiguous()
        for name, tensor in tensors.items()
    }
    save_file(rounded, path, metadata=header)
    return path
