"""Decoder layers that keep less for their backward pass: recipes instead of tensors, inside of the layers alone.

Of 10 d + 4 f numbers that a layer of the Llama kind keeps for a place (width d, inner width f), 4 d + 2 f are products
or activations of others. Computing them again costs about a hundredth of a step.

Where recipes serve is found on a tiny row: every tensor that a layer saves is compared with what its recipe gives, by
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from align.engine.blocks import SHARDED_BY, find_blocks
from preference.layout.recipes import Kept, Recipe, pack, unpack

Pack = Callable[[Tensor], Kept | Recipe]


@dataclass(frozen=True, kw_only=True)
class LeanLayers:
    """Layers whose recipes have been compared.

    Attributes:
        names: of modules within a trunk.
        share: of the bytes that they would keep for the backward pass, those that they need not, on the tiny row.
            Weights do not count: they are there anyway.
    """

    names: tuple[str, ...]
    share: float


def find_lean_layers(trunk: nn.Module, run: Callable[[], Any]) -> LeanLayers | None:
    """The repeated layers, if recipes give what they would save; None = nothing could be left out.

    Args:
        trunk: model without its head. What it saves depends on which weights are trained.
        run: a pass of the trunk (Any: nobody reads what it gives).

    Raises:
        AssertionError: a recipe gives other numbers than the tensor that it stands for.
    """
    names = {id(module): name for name, module in trunk.named_modules()}
    found = tuple(names[id(block)] for block in find_blocks(trunk, SHARDED_BY) if id(block) in names)
    watch = _Watch({weight.untyped_storage().data_ptr() for weight in trunk.parameters()})
    with torch.enable_grad(), lean(trunk, LeanLayers(names=found, share=0.0), pack=watch.pack):
        run()
    share = watch.share()
    return LeanLayers(names=found, share=share) if share else None


class _Watch:
    """Compares each recipe with its tensor, and counts bytes by storage: one tensor may be saved several times."""

    def __init__(self, weights: set[int]) -> None:
        self._weights = weights  # transposed ones are saved as if they had been computed
        self.kept: dict[int, Tensor] = {}  # they stay alive: a storage that is freed would lend its address to others
        self.left_out: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> Kept | Recipe:
        packed = pack(tensor)
        if isinstance(packed, Recipe):
            torch.testing.assert_close(packed.value(), tensor.detach(), equal_nan=True)
        place = tensor.untyped_storage().data_ptr()
        if tensor.grad_fn is not None and place not in self._weights:
            side = self.left_out if isinstance(packed, Recipe) else self.kept
            side[place] = tensor.detach()
        return packed

    def share(self) -> float:
        sizes = [
            sum(tensor.untyped_storage().nbytes() for place, tensor in side.items() if place not in others)
            for side, others in ((self.left_out, self.kept), (self.kept, {}))
        ]
        return sizes[0] / max(sum(sizes), 1)


@contextmanager
def lean(trunk: nn.Module, layers: LeanLayers | None, *, pack: Pack = pack) -> Iterator[None]:
    """Inside, passes with gradient keep recipes; the backward pass may come later.

    A layer that is compiled is left alone. So are all where activations are computed again anyway: what a layer
    saves is dropped as a whole there.

    Args:
        trunk: model without its head.
        layers: of `find_lean_layers`.
        pack: what is kept of a saved tensor: something whose `value()` gives it back.
    """
    if layers is None or not torch.is_grad_enabled() or _recomputed(trunk):
        yield
        return
    with ExitStack() as stack:
        for name in layers.names:
            layer = trunk.get_submodule(name)
            if "forward" not in vars(layer):
                stack.enter_context(_window(layer, pack))
        yield


def _recomputed(trunk: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) and module.training for module in trunk.modules())


@contextmanager
def _window(module: nn.Module, pack: Pack) -> Iterator[None]:
    """Inside of the module alone: around it masks are made with transforms of functions, which refuse recipes.

    By hooks of the module, which is the same afterwards, whatever happened inside.
    """
    opened = ExitStack()

    def enter(*_: Any) -> None:  # Any: arguments of hooks
        opened.enter_context(saved_tensors_hooks(pack, unpack))

    def leave(*_: Any) -> None:
        opened.close()

    handles = (module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        opened.close()
        for handle in handles:
            handle.remove()
