"""The last layer of a trunk, computed only where its result is read.

The head reads the states that predict scored tokens, and nothing after the last layer's attention mixes places. So its
keys and values are needed everywhere; queries, the output projection of attention and the feed-forward part only at
those places. Elsewhere they give zeros, which nobody reads. At prompt 256 and two answers of 64 tokens two thirds of
the places drop out of about four fifths of the layer.

Which parts of a layer take that is found by names, and proved on a tiny row: by numbers, as layouts are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.blocks import SHARDED_BY, find_blocks
from preference.layout.attention import PiecewiseMask
from preference.replaced import replaced

FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
PROJECTIONS = ("q_proj", "o_proj", "out_proj", "c_proj", "dense")
"""Names of parts of decoder layers in transformers."""

_PAYS = 0.9
"""With more than this share of the places read, all of them are computed."""

_GARBAGE = 1e3
"""What unread places hold in the proof: whoever reads one all the same is far off."""

_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest distance that counts as rounding, as a share of the length of what is compared."""


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """Names of modules within a trunk.

    Attributes:
        name: the last layer.
        parts: what of it runs on the read places only.
    """

    name: str
    parts: tuple[str, ...]


def find_last_layer(trunk: nn.Module, run: Callable[[], Tensor], read: Int[Tensor, "r"]) -> LastLayer | None:
    """The last layer and its parts that need no other places than those that are read; None = there are none.

    Args:
        trunk: model without its head.
        run: a pass of the trunk, which gives hidden states [b, t, d].
        read: flat places of that pass whose states count: not all of them.
    """
    blocks = find_blocks(trunk, SHARDED_BY)
    names = {id(module): name for name, module in trunk.named_modules()}
    if not blocks or id(blocks[-1]) not in names:
        return None
    whole = LastLayer(name=names[id(blocks[-1])], parts=tuple(names[id(part)] for part in _candidates(blocks[-1])))
    expected = run().flatten(0, 1)[read]
    parts = []
    for part in whole.parts:
        alone = LastLayer(name=whole.name, parts=(part,))
        if _by_rows(trunk.get_submodule(part), run, read) and _unread(trunk, alone, run, read, expected):
            parts.append(part)
    return LastLayer(name=whole.name, parts=tuple(parts)) if parts else None


def _candidates(layer: nn.Module) -> list[nn.Module]:
    """Feed-forward part and projections by their names. Experts balance their loads over all tokens: not these."""
    found = [part for name, part in layer.named_children() if name in FEED_FORWARD]
    for name, attention in layer.named_children():
        found += [part for own, part in attention.named_children() if name in ATTENTION and own in PROJECTIONS]
    return [part for part in found if not any("expert" in name for name, _ in part.named_modules())]


def _by_rows(part: nn.Module, run: Callable[[], Tensor], read: Int[Tensor, "r"]) -> bool:
    """Whether the part is a function of each place for itself: of one tensor, without state."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    hook = part.register_forward_hook(lambda _, args, more, out: seen.append((args, more, out)), with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    if len(seen) != 1:
        return False
    inputs, options, out = seen[0]
    if len(inputs) != 1 or options or not isinstance(out, Tensor) or out.shape[:-1] != inputs[0].shape[:-1]:
        return False
    alone = part(inputs[0].flatten(0, -2)[read][None])[0]
    return _same(alone, out.flatten(0, -2)[read])


def _unread(
    trunk: nn.Module, last: LastLayer, run: Callable[[], Tensor], read: Int[Tensor, "r"], expected: Float[Tensor, "r d"]
) -> bool:
    """Whether nothing that is read comes from the part's other places."""
    with narrowed(trunk, last, read, fill=_GARBAGE):
        return _same(run().flatten(0, 1)[read], expected)


def _same(ours: Tensor, expected: Tensor) -> bool:
    length = torch.linalg.vector_norm(expected.double(), dim=-1).clamp(min=1e-12)
    gaps = torch.linalg.vector_norm((ours - expected).double(), dim=-1) / length
    return float(gaps.max()) <= _TOLERANCE.get(expected.dtype, 5e-2)


@contextmanager
def narrowed(
    trunk: nn.Module, last: LastLayer | None, read: Int[Tensor, "r"], *, places: int | None = None, fill: float = 0.0
) -> Iterator[None]:
    """Inside, the last layer's states are right at the `read` places, and anything elsewhere.

    A layer that is compiled computes every place, as does one whose every place is read.

    Args:
        trunk: model without its head.
        last: of `find_last_layer`.
        read: flat places (row * t + column), each once.
        places: b t, to see whether it pays; None = it does.
        fill: what the parts give elsewhere.
    """
    layer = None if last is None else trunk.get_submodule(last.name)
    if last is None or layer is None or "forward" in vars(layer) or (places and len(read) > _PAYS * places):
        yield
        return
    parts = [trunk.get_submodule(name) for name in last.parts]
    attention = any(name.endswith(PROJECTIONS) for name in last.parts)
    with replaced(layer, _Layer(layer, parts, read, fill, attention)):
        yield


class _Layer:
    """The layer's forward. Where activations are computed again, that pass has to be narrow as well, long after the
    trunk's own is over: so the layer recomputes itself, and the parts are narrow inside of what is recomputed.
    """

    def __init__(
        self, layer: nn.Module, parts: Sequence[nn.Module], read: Tensor, fill: float, attention: bool
    ) -> None:
        self._layer, self._parts, self._read, self._fill, self._attention = layer, parts, read, fill, attention
        self._forward = layer.forward
        self._recomputed = bool(getattr(layer, "gradient_checkpointing", False)) and layer.training

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # Any: layers' own signatures
        run = partial(self._run, **kwargs)
        if self._recomputed and torch.is_grad_enabled():
            recomputing: Any = self._layer
            return recomputing._gradient_checkpointing_func(run, *args)
        return run(*args)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self._attention:  # what comes from queries elsewhere goes into a part that is narrow, or is one
            args = tuple(self._narrow(value) for value in args)
            kwargs = {name: self._narrow(value) for name, value in kwargs.items()}
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(replaced(part, partial(_at, part.forward, self._read, self._fill)))
            if self._recomputed:
                layer: Any = self._layer
                stack.callback(setattr, layer, "gradient_checkpointing", layer.gradient_checkpointing)
                layer.gradient_checkpointing = False
            return self._forward(*args, **kwargs)

    def _narrow(self, value: Any) -> Any:  # Any: whatever a layer is given
        return value.reading(self._read) if isinstance(value, PiecewiseMask) else value


def _at(
    forward: Callable[[Tensor], Tensor], read: Int[Tensor, "r"], fill: float, inputs: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t e"]:
    """A module on some places, the others filled."""
    found = forward(inputs.flatten(0, -2).index_select(0, read)[None])[0]
    out = found.new_full((inputs[..., 0].numel(), found.shape[-1]), fill)
    return out.index_copy_(0, read, found).unflatten(0, inputs.shape[:-1])
