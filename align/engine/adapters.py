"""The trained network: low-rank adapters or all weights, behind one object.

`Policy` knows which weights are trained and by what stable names; it can show the network as it was before training
(the reference) and with other weights (a moving average, a lagged policy). Nothing here knows a model family.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.random import generator
from align.errors import AlignError

if TYPE_CHECKING:
    from accelerate import Accelerator

_ADAPTER = "default"
_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


class TrainingDropout(nn.Dropout):
    """Dropout that acts only where gradients are recorded: rollouts and evaluations see the whole adapter."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(input, self.p, training=True) if torch.is_grad_enabled() else input


class Policy:
    """A network and the weights of it that are trained. Made by `Policy.lora` or `Policy.full`.

    Attributes:
        module: the network itself; for passes without gradient, and for saving.
        network: the module to call *with* gradient (wrapped for several processes after `prepare`).
        identity: what a checkpoint must agree on: texts such as the class and the path of the model.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Mapping[str, nn.Parameter],
        *,
        identity: Mapping[str, str] | None = None,
        original: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.module = module
        self.network: nn.Module = module
        self.identity = {"class": type(module).__name__, **(identity or {})}
        self._weights = dict(weights)
        self._original = original
        self._layers = [layer for layer in module.modules() if _is_adapter_layer(layer)]

    @classmethod
    def lora(
        cls,
        module: nn.Module,
        config: LoraConfig,
        targets: Sequence[str],
        *,
        seed: int,
        identity: Mapping[str, str] | None = None,
    ) -> Policy:
        """Freeze the network and put low-rank adapters on the layers whose names end with one of `targets`.

            W x  becomes  W x + alpha / rank * B A x,     A ~ N(0, 1 / rank^2),  B = 0

        so that the new network computes what the old one did. A is drawn by (seed, layer name), in float32, whatever
        the network's precision and device are.

        Raises:
            AlignError: a target matches no layer.

        References:
            Hu et al., "LoRA", arXiv:2106.09685, section 4.1.
        """
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model

        _check_targets(module, targets)
        module.requires_grad_(False)
        settings = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(targets),
            lora_dropout=config.dropout,
            init_lora_weights="gaussian",
        )
        if hasattr(module, "add_adapter"):  # diffusers and transformers models keep books on their adapters
            module.add_adapter(settings, adapter_name=_ADAPTER)
        else:
            inject_adapter_in_model(settings, module, _ADAPTER)
        weights = {_stable(name): parameter for name, parameter in module.named_parameters() if f".{_ADAPTER}." in name}
        _initialise(weights, config.rank, seed)
        _use_training_dropout(module)
        module.eval()
        return cls(module, weights, identity={"adapter": f"lora rank {config.rank}", **(identity or {})})

    @classmethod
    def full(
        cls, module: nn.Module, *, keep_reference: bool = False, identity: Mapping[str, str] | None = None
    ) -> Policy:
        """Train every floating-point weight of the network, in float32.

        Args:
            module: the network.
            keep_reference: keep a second copy of the weights for `reference()`.
            identity: see `Policy`.
        """
        module.float().requires_grad_(True).eval()
        weights = dict(module.named_parameters())
        original = {name: weight.detach().clone() for name, weight in weights.items()} if keep_reference else None
        return cls(module, weights, identity={"adapter": "none", **(identity or {})}, original=original)

    def prepare(self, accelerator: Accelerator) -> None:
        """Move to the device, put the forward pass under autocast, and wrap for several processes."""
        with warnings.catch_warnings():
            # Newer torch renames the setting that `start_accelerator` gives; the new name does not pass through Accelerate.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self.network = accelerator.prepare_model(self.module)
        if self._original is not None:
            self._original = {name: tensor.to(accelerator.device) for name, tensor in self._original.items()}

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass.

        Raises:
            AlignError: the network does not offer it.
        """
        if hasattr(self.module, "enable_gradient_checkpointing"):  # diffusers
            self.module.enable_gradient_checkpointing()
        elif hasattr(self.module, "gradient_checkpointing_enable"):  # transformers
            self.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            for layer in self.module.modules():
                if hasattr(layer, "gradient_checkpointing"):
                    layer.training = True  # it recomputes in training mode only; its children stay without dropout
        else:
            raise AlignError(
                f"training.gradient_checkpointing is on, but {type(self.module).__name__} cannot recompute its inside.",
                "Set training.gradient_checkpointing=false.",
            )

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The trained weights by stable name."""
        return dict(self._weights)

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(weight.numel() for weight in self._weights.values())

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """Inside, the network computes what it did before training, without gradient. Yields the module to call.

        Raises:
            AlignError: all weights are trained and no copy was kept.
        """
        if not self._layers:
            if self._original is None:
                raise AlignError(
                    "the reference needs the weights from before training, and no copy of them was kept.",
                    "Make the policy with keep_reference=True, or train adapters (model.lora).",
                )
            with self.swapped(self._original) as module:
                yield module
            return
        wanted = {name: weight.requires_grad for name, weight in self._weights.items()}
        try:
            for layer in self._layers:
                layer.enable_adapters(False)
            with torch.no_grad():
                yield self.module
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)
            for name, weight in self._weights.items():  # switching an adapter touches requires_grad
                weight.requires_grad_(wanted[name])

    @contextmanager
    def swapped(self, weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """Inside, the network computes with these weights, without gradient. Yields the module to call.

        The trained weights are laid aside, not copied over: they come back bit for bit, also after an error.

        Raises:
            KeyError: a trained weight is missing in `weights`.
        """
        missing = self._weights.keys() - weights.keys()
        if missing:
            raise KeyError(f"weights to swap in lack {len(missing)} trained weights, such as {sorted(missing)[:3]}")
        aside = {name: weight.data for name, weight in self._weights.items()}
        try:
            for name, weight in self._weights.items():
                weight.data = weights[name].detach().to(weight.device, weight.dtype)
            torch.clear_autocast_cache()  # else an outer autocast would go on with casts of the weights laid aside
            with torch.no_grad():
                yield self.module
        finally:
            for name, weight in self._weights.items():
                weight.data = aside[name]
            torch.clear_autocast_cache()

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights by stable name, without gradient; views, not copies."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy trained weights in; names and shapes must agree."""
        for name, weight in self._weights.items():
            weight.copy_(state[name])


def available_endings(module: nn.Module) -> list[str]:
    """Endings of the names of layers that can carry an adapter, with the number of the block left out."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, _ADAPTABLE)]
    return sorted({re.sub(r"^.*?\.\d+\.", "", name) for name in names})


def _check_targets(module: nn.Module, targets: Sequence[str]) -> None:
    names = [name for name, layer in module.named_modules() if isinstance(layer, _ADAPTABLE)]
    lost = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if lost or not targets:
        raise AlignError(
            f"LoRA targets {lost or list(targets)} match no layer of {type(module).__name__}.",
            f"Choose model.lora.targets from these endings: {', '.join(available_endings(module))}.",
        )


def _is_adapter_layer(layer: nn.Module) -> bool:
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
        if _is_adapter_layer(layer) and isinstance(layer.lora_dropout[_ADAPTER], nn.Dropout):
            layer.lora_dropout[_ADAPTER] = TrainingDropout(layer.lora_dropout[_ADAPTER].p)
