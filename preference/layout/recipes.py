"""Saved tensors as recipes: what is an elementwise function of other saved tensors need not be kept for backward.

A layer of the Llama kind keeps, among others, of act(gate) * up all of: gate, act(gate), up, product; and of a norm its
input, the normalised input, and that times the weight. The second and last of the former, and the last two of the
latter, follow from the others in one multiplication or one activation function each.

Which tensors these are is read from the autograd graph, not from names: the node that made a tensor says which
operation it was, and holds its inputs where its own backward pass needs them. So nothing depends on how a model writes
its feed-forward part, or on what stands in for a linear layer (adapters, quantised or sharded weights); and where
something else comes in between, such as dropout, a tensor is kept as usual. Same operation, same inputs: same numbers.

Reference:
    Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174: drop what is cheap to compute again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SAME_NUMBERS = frozenset({"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ToCopyBackward0"})
"""Nodes of other shapes and dtypes of the same numbers."""

_PRODUCT = "MulBackward0"

_CACHE = "recomputed for the backward pass"
"""Key in a node's metadata."""


# Any: nodes of the graph, whose `_saved_` attributes depend on the operation.
def _product(node: Any) -> Tensor:
    """Either factor is saved for the gradient of the other one only; without it, it has a node of its own."""
    factors = (node._saved_self, node._saved_other)
    known = [
        _value_of(function) if factor is None else factor
        for factor, (function, _) in zip(factors, node.next_functions, strict=True)
    ]
    return known[0] * known[1]


def _silu(node: Any) -> Tensor:
    return functional.silu(node._saved_self)


def _gelu(node: Any) -> Tensor:
    return functional.gelu(node._saved_self, approximate=node._saved_approximate)


def _layer_norm(node: Any) -> Tensor:
    """(x - mean) / deviation * weight + bias; the statistics are saved, too."""
    inputs, weight, bias = node._saved_input, node._saved_weight, node._saved_bias
    out = (inputs - node._saved_result1) * node._saved_result2
    if weight is not None:
        out = out * weight if bias is None else torch.addcmul(bias, out, weight)
    return out.to(inputs.dtype)


OPERATIONS: dict[str, Callable[[Any], Tensor]] = {
    _PRODUCT: _product,
    "SiluBackward0": _silu,
    "GeluBackward0": _gelu,
    "NativeLayerNormBackward0": _layer_norm,
}
"""What is cheap, by the name of its node. Each must save its inputs, never its result: a result that refers to its own
node would never be freed.
"""


class Kept:
    """A saved tensor as torch keeps it, with torch's own check that nobody has written to it since."""

    __slots__ = ("_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        # Without its node: a node that saves its result would otherwise refer to itself.
        self._tensor = tensor if tensor.grad_fn is None else tensor.detach()
        self._version = tensor._version

    def value(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: it is not what was saved any more.
        """
        if self._tensor._version != self._version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self._tensor.shape)} that the backward pass needs was modified by an inplace"
                f" operation: it is at version {self._tensor._version}, saved was version {self._version}."
            )
        return self._tensor


class Recipe:
    """A saved tensor that is computed when it is asked for, from what its node has saved."""

    __slots__ = ("_node",)

    def __init__(self, node: Any) -> None:
        self._node = node

    def value(self) -> Tensor:
        """The tensor, with the numbers that it had.

        Raises:
            RuntimeError: the graph has been freed, or one of the inputs was written to.
        """
        return _value_of(self._node)


def pack(tensor: Tensor) -> Kept | Recipe:
    """What is kept of a tensor that the backward pass needs; for `torch.autograd.graph.saved_tensors_hooks`."""
    plain = type(tensor) is Tensor  # not a weight, nor a class with rules of its own
    if plain and _repeatable(tensor.grad_fn, tensor.output_nr):
        return Recipe(tensor.grad_fn)
    return Kept(tensor)


def unpack(kept: Kept | Recipe) -> Tensor:
    """The tensor again."""
    return kept.value()


def _repeatable(node: Any, number: int) -> bool:
    """Whether everything between a node's result, of that number, and saved tensors is cheap. Computes nothing."""
    while node is not None and node.name() in _SAME_NUMBERS and hasattr(node, "_input_metadata"):
        node, number = node.next_functions[0]
    if node is None or number != 0 or node.name() not in OPERATIONS:
        return False
    if node.name() != _PRODUCT:
        return True
    first, second = node.next_functions
    # A factor without a function of its own has no gradient: so the other one is not saved.
    return (second[0] is not None or _repeatable(*first)) and (first[0] is not None or _repeatable(*second))


def _value_of(node: Any) -> Tensor:
    """The result of a node's operation."""
    if node.name() not in _SAME_NUMBERS:
        return _once(node)
    (result,) = node._input_metadata  # of the gradient that comes in, which is like the result
    return _value_of(node.next_functions[0][0]).to(result.device, result.dtype).reshape(result.shape)


def _once(node: Any) -> Tensor:
    """The operation's result: kept from when it is first needed until the operation's own backward pass begins.

    By then everything that has used it is through, in this backward pass: three projections share a norm's output.
    """
    cache = node.metadata.get(_CACHE)
    if cache is None:
        cache = node.metadata[_CACHE] = {}
        node.register_prehook(lambda _, cache=cache: cache.clear())  # not the node itself: it would never be freed
    if not cache:
        with torch.no_grad():
            cache["value"] = OPERATIONS[node.name()](node)
    return cache["value"]
