"""The trained network: low-rank adapters or all weights, behind one object.

`Policy` knows which weights are trained and by what stable names; it can show the network as it was before training
(the reference) and with other weights (a moving average, a lagged policy). Nothing here knows a model family.

Under FSDP2 the weights, and all copies that are made of them here, are spread over the processes
(`align.engine.sharding`); `assembled` is for saving the network whole.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine import fsdp
from align.engine.compilation import compile_blocks
from align.engine.lora import inject, is_adapter_layer
from align.engine.sharding import assign, exchange, spread
from align.errors import AlignError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
_DOOR = "called_through"


def adapter_identity(config: LoraConfig) -> str:
    """What a checkpoint must agree on about its adapters."""
    return f"lora of rank {config.rank} and alpha {config.alpha:g}"


class Policy:
    """A network and the weights of it that are trained. Made by `Policy.lora` or `Policy.full`.

    Attributes:
        module: the network itself; for passes without gradient, and inside `assembled` for saving.
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
        self._layers = [layer for layer in module.modules() if is_adapter_layer(layer)]
        self._sharded: fsdp.Sharded | None = None

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

        The new network computes what the old one did; see `align.engine.lora`.

        Raises:
            AlignError: a target matches no layer.
        """
        weights = inject(module, config, targets, seed=seed)
        return cls(module, weights, identity={"adapter": adapter_identity(config), **(identity or {})})

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
        """Move to the device, put the forward pass under autocast, wrap for several processes or spread over them."""
        spreading = fsdp.applies(accelerator)
        self.module.forward = _with_door(self.module, self.module.forward)
        with warnings.catch_warnings():
            # Newer torch renames what `start_accelerator` sets; Accelerate does not know the new name yet.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self.network = accelerator.prepare_model(self.module, evaluation_mode=spreading)
        if spreading:
            places = {id(weight): (layer, name) for layer, name, weight in fsdp.places(self.module)}
            found = {name: places[id(weight)] for name, weight in self._weights.items()}
            self._sharded = fsdp.Sharded(self.module, accelerator)
            self._weights = {name: cast("nn.Parameter", getattr(layer, own)) for name, (layer, own) in found.items()}
        if self._original is not None:
            self._original = {
                name: spread(tensor.to(accelerator.device), self._weights[name])
                for name, tensor in self._original.items()
            }

    def through(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """`function(module, *args, **kwargs)` as one pass with gradient of the network; after `prepare`.

        For methods that call parts of a network: DDP and FSDP2 see passes through the whole of it only. Several parts
        may be called inside, each once or often; tensors that carry gradients out are returned.
        """
        return self.network(*args, **kwargs, **{_DOOR: function})

    def compile(self, backend: str = "inductor") -> None:
        """Compile each repeated block in place; before `prepare`. See `align.engine.compilation`."""
        compile_blocks(self.module, backend=backend)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass.

        Raises:
            AlignError: the network does not offer it.
        """
        names = (
            "enable_gradient_checkpointing",  # diffusers
            "activation_checkpointing_enable",  # transformers, the later name first
            "gradient_checkpointing_enable",
        )
        switch = next((getattr(self.module, name) for name in names if hasattr(self.module, name)), None)
        if switch is None:
            raise AlignError(
                f"training.gradient_checkpointing is on, but {type(self.module).__name__} cannot recompute its inside.",
                "Set training.gradient_checkpointing=false.",
            )
        switch()
        for layer in self.module.modules():
            if hasattr(layer, "gradient_checkpointing"):
                layer.training = True  # transformers recompute in training mode only; its children stay without dropout

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
        aside: dict[str, Tensor] = {}
        try:
            with self._rewritten():
                for name, weight in self._weights.items():
                    aside[name] = exchange(weight, weights[name])
            torch.clear_autocast_cache()  # else an outer autocast would go on with casts of the weights laid aside
            with torch.no_grad():
                yield self.module
        finally:
            with self._rewritten():
                for name, value in aside.items():
                    exchange(self._weights[name], value)
            torch.clear_autocast_cache()

    def gather(self, *, at_next_pass: bool = False) -> None:
        """Until `reshard`, passes without gradient are no collectives: processes may run different numbers of them.

        A collective, and only under FSDP2 anything at all.

        Args:
            at_next_pass: only when the network is first called without gradient, which then every process has to do.
        """
        if self._sharded is not None:
            self._sharded.gather_at_next_pass() if at_next_pass else self._sharded.gather()

    def reshard(self) -> None:
        """End of `gather`."""
        if self._sharded is not None:
            self._sharded.reshard()

    @contextmanager
    def assembled(self, *, keep: bool) -> Iterator[nn.Module]:
        """Inside, `module` and `state_dict` hold whole plain weights, for saving. A collective; yields the module.

        Under FSDP2 they are copies on the processor, and the network cannot be called; otherwise nothing changes.

        Args:
            keep: whether this process is to have them; the main process is the one that writes.
        """
        if self._sharded is None:
            yield self.module
            return
        spread_weights = self._weights
        with self._sharded.assembled(keep=keep) as plain:
            self._weights = {name: plain.get(id(weight), weight) for name, weight in spread_weights.items()}
            try:
                yield self.module
            finally:
                self._weights = spread_weights

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights by stable name, without gradient; views, not copies. Spread where the weights are."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy trained weights in, whole or spread; names and shapes must agree."""
        with self._rewritten():
            for name, weight in self._weights.items():
                assign(weight, state[name])

    def _rewritten(self) -> AbstractContextManager[None]:
        return nullcontext() if self._sharded is None else self._sharded.rewritten()


def _with_door(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:  # Any: networks' own signatures
    @functools.wraps(forward)
    def door(*args: Any, **kwargs: Any) -> Any:
        function = kwargs.pop(_DOOR, None)
        return forward(*args, **kwargs) if function is None else function(module, *args, **kwargs)

    return door
