"""The last layer of a language model: hidden states [m, d] to logits [m, v].

    z = scale * (W h + b),      softcap: z <- c tanh(z / c)

Two kinds: weights that we may read (`LinearHead`), and a module that must be called (`ModuleHead`): a layer wrapped by
LoRA, quantised or sharded, whose weight alone is not what it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.units import precise


class Handover:
    """Where the head leaves the gradient of a matrix, instead of giving it to autograd, for the embedding, which is the
    same matrix and comes later in the backward pass: see `tied.py`.
    """

    def __init__(self) -> None:
        self._left: dict[int, Tensor] = {}

    def leave(self, source: object, gradient: Float[Tensor, "v d"]) -> None:
        """The gradient of one use of the head; a second pass over the same graph leaves it anew."""
        self._left[id(source)] = gradient

    def take(self) -> Float[Tensor, "v d"] | None:
        """The sum of what was left, once."""
        total = None
        while self._left:
            _, gradient = self._left.popitem()
            total = gradient if total is None else total.add_(gradient)
        return total


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A matrix product.

    Attributes:
        weight: W; may be frozen, or tied to the embedding.
        bias: b, or None.
        scale: multiplies the logits (Cohere's logit_scale; Granite divides: 1 / logits_scaling).
        softcap: c of Gemma 2; None = none.
        float32_product: multiply in float32 even if the weights are narrower. For teachers, whose differences are as
            small as the rounding of bfloat16 logits.
        handover: takes the gradient of the weight; None = autograd does.
    """

    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, "v"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    float32_product: bool = False
    handover: Handover | None = None

    def logits(self, hidden: Float[Tensor, "*m d"]) -> Float[Tensor, "*m v"]:
        """Logits, float32 or better."""
        dtype = product_dtype(self, hidden)
        weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            return finish(torch.nn.functional.linear(hidden.to(dtype), weight, bias), self.scale, self.softcap)


@dataclass(frozen=True, kw_only=True)
class ModuleHead:
    """A layer that is called as it is.

    Attributes:
        module: hidden states to logits.
        scale: multiplies its logits.
        softcap: c of Gemma 2; None = none.
    """

    module: Callable[[Tensor], Tensor]
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Float[Tensor, "*m d"]) -> Float[Tensor, "*m v"]:
        """Logits, float32 or better."""
        return finish(self.module(hidden), self.scale, self.softcap)


Head = LinearHead | ModuleHead


def finish(product: Float[Tensor, "*m v"], scale: float, softcap: float | None) -> Float[Tensor, "*m v"]:
    """Scale and soft cap, in float32 or better."""
    logits = precise(product)
    if scale != 1.0:
        logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def finish_(logits: Float[Tensor, "*m v"], scale: float, softcap: float | None) -> Float[Tensor, "*m v"]:
    """The same in place, for logits that are float32 or better and need no gradient."""
    if scale != 1.0:
        logits.mul_(scale)
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def product_dtype(head: LinearHead, hidden: Tensor) -> torch.dtype:
    """Dtype of the product: autocast's where it is on, else what both promote to; float32 if the head asks for it."""
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, head.weight.dtype)
    if dtype == torch.float64:
        return dtype
    if head.float32_product:
        return torch.float32
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
