"""Low-rank adapters through peft: which layers carry one, how it begins, what its weights are called.

    W x  becomes  W x + alpha / rank * B A x,     A ~ N(0, 1 / rank^2),  B = 0

Hu et al., "LoRA", arXiv:2106.09685, section 4.1; the deviation of A is that of peft's `init_lora_weights="gaussian"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.random import generator
from align.errors import AlignError

_ADAPTER = "default"
_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_TRANSPOSED = "Conv1D"  # GPT-2's linear layers, a class of transformers, which hold W transposed


class AdapterLayer(Protocol):
    """What we use of peft's layers."""

    lora_dropout: nn.ModuleDict

    def enable_adapters(self, enabled: bool) -> None: ...


class TrainingDropout(nn.Dropout):
    """Dropout that acts only where gradients are recorded: rollouts and evaluations see the whole adapter."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(input, self.p, training=True) if torch.is_grad_enabled() else input


def inject(module: nn.Module, config: LoraConfig, targets: Sequence[str], *, seed: int) -> dict[str, nn.Parameter]:
    """Freeze a network, put adapters on it in place, and leave it in evaluation mode.

    A is drawn by (seed, layer name), in float32, whatever the network's precision and device are.

    Args:
        module: the network.
        config: rank, alpha and dropout.
        targets: endings of layer names.
        seed: of A.

    Returns:
        The adapters' weights by stable name.

    Raises:
        AlignError: a target matches no layer.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    adapted = check_targets(module, targets)
    module.requires_grad_(False)
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=cast("int", config.alpha),  # declared int; peft only divides it by the rank
        target_modules=list(targets),
        lora_dropout=config.dropout,
        init_lora_weights="gaussian",
        fan_in_fan_out=all(type(layer).__name__ == _TRANSPOSED for layer in adapted),
    )
    # Not by the libraries' own add_adapter, which refuses every peft but the newest; it does these two things.
    inject_adapter_in_model(settings, module, _ADAPTER)
    if hasattr(module, "_hf_peft_config_loaded"):  # the books of diffusers and transformers models
        cast("Any", module)._hf_peft_config_loaded = True  # Any: two libraries' mixins, no common type
    weights = {_stable(name): weight for name, weight in module.named_parameters() if f".{_ADAPTER}." in name}
    _initialise(weights, config.rank, seed)
    _use_training_dropout(module)
    module.eval()
    return weights


def available_endings(module: nn.Module) -> list[str]:
    """Endings of the names of layers that can carry an adapter, with the number of the block left out."""
    names = [name for name, layer in module.named_modules() if _can_adapt(layer)]
    return sorted({re.sub(r"^.*?\.\d+\.", "", name) for name in names})


def check_targets(module: nn.Module, targets: Sequence[str]) -> list[nn.Module]:
    """The layers whose names end with a target. Refuses targets that no layer's name ends with.

    Raises:
        AlignError: names them, and the endings there are.
    """
    layers = {name: layer for name, layer in module.named_modules() if _can_adapt(layer)}
    found = {target: [name for name in layers if name == target or name.endswith(f".{target}")] for target in targets}
    lost = [target for target, names in found.items() if not names]
    if lost or not targets:
        raise AlignError(
            f"LoRA targets {lost or list(targets)} match no layer of {type(module).__name__}.",
            f"Choose model.lora.targets from these endings: {', '.join(available_endings(module))}.",
        )
    return [layers[name] for names in found.values() for name in names]


def _can_adapt(layer: nn.Module) -> bool:
    return isinstance(layer, _ADAPTABLE) or type(layer).__name__ == _TRANSPOSED


def is_adapter_layer(layer: nn.Module) -> TypeGuard[AdapterLayer]:
    """Whether a layer carries an adapter."""
    return hasattr(layer, "lora_A") and hasattr(layer, "enable_adapters")


def _stable(name: str) -> str:
    """`block.to_q.lora_A.default.weight` -> `block.to_q.lora_A.weight`, the name in a saved adapter."""
    return name.replace(f".{_ADAPTER}.", ".")


@torch.no_grad()
def _initialise(weights: Mapping[str, nn.Parameter], rank: int, seed: int) -> None:
    for name, weight in weights.items():
        weight.data = weight.data.float()
        if ".lora_A." in name or ".lora_embedding_A" in name:
            weight.copy_(torch.randn(weight.shape, generator=generator(seed, "lora", name)) / rank)
        else:
            weight.zero_()


def _use_training_dropout(module: nn.Module) -> None:
    for layer in module.modules():
        if is_adapter_layer(layer) and isinstance(dropout := layer.lora_dropout[_ADAPTER], nn.Dropout):
            layer.lora_dropout[_ADAPTER] = TrainingDropout(dropout.p)
