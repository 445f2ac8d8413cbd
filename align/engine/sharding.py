"""Tensors that are spread over processes: whole ones from parts, parts from whole ones.

Under FSDP2 a weight is a `DTensor`: each process holds a slice of its rows. Copies of weights (moving average, lagged
policy, moments of the optimiser) are sliced like them, so arithmetic between them stays on the process. Only what
leaves the run, such as a checkpoint, is whole, and whole tensors go to the processor one by one.

Everything here leaves plain tensors alone: without FSDP2 these functions copy nothing and send nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

V = TypeVar("V")


def is_sharded(value: object) -> bool:
    """Whether this process holds only a part of a tensor."""
    return isinstance(value, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part, without gradient; it shares memory with the tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """The whole tensor without gradient: on the processor if it was spread, itself if it was not. A collective."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    # With weights kept in the processor's memory the parts still travel between the accelerators.
    there = cast("DTensor", tensor.detach().to(tensor.device_mesh.device_type))
    return there.full_tensor().cpu()


def number(scalar: Tensor) -> float:
    """A scalar as a number. A collective: of a sum over a spread tensor, `.item()` is this process's share only."""
    return float(whole(scalar))


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor of which every process has a whole copy, cut as `like` is; not a collective.

    Args:
        tensor: whole, or cut already.
        like: the weight.
    """
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    part = tensor.detach()
    for dim, placement in enumerate(like.placements):
        if isinstance(placement, Shard):
            part = _slice(part, placement.dim, like.device_mesh.size(dim), like.device_mesh.get_local_rank(dim))
    part = part.to(local(like).device, copy=True).contiguous()
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=tensor.shape, stride=like.stride()
    )


def gathered(state: Mapping[str, V | Tensor], *, keep: bool) -> dict[str, V | Tensor]:
    """A flat state with whole tensors; a collective, with the same names in the same order everywhere.

    Args:
        state: tensors and other values by name.
        keep: whether this process needs it; else each tensor is let go before the next one comes.
    """
    found: dict[str, V | Tensor] = {}
    for name, value in state.items():
        entry = whole(value) if isinstance(value, Tensor) else value
        if keep:
            found[name] = entry
    return found


def spread_state(state: Mapping[str, V | Tensor], like: Mapping[str, V | Tensor]) -> dict[str, V | Tensor]:
    """A flat state whose tensors are cut as those of the same name in `like`."""
    found: dict[str, V | Tensor] = {}
    for name, value in state.items():
        model = like.get(name)
        found[name] = spread(value, model) if isinstance(value, Tensor) and isinstance(model, DTensor) else value
    return found


@torch.no_grad()
def assign(weight: Tensor, value: Tensor) -> None:
    """Copy a value into a weight in place; whole values are cut as the weight is."""
    if isinstance(weight, DTensor):
        local(weight).copy_(local(spread(value, weight)))
    else:
        weight.copy_(value)


@torch.no_grad()
def exchange(weight: nn.Parameter, value: Tensor) -> Tensor:
    """Let a weight have another value, and return the one that it had; `exchange(weight, returned)` is the way back.

    A plain weight gets the other memory, and nothing is copied where dtype and device agree. FSDP2 keeps hold of a
    weight's memory, so there the values change places instead.
    """
    if isinstance(weight, DTensor):
        aside = weight.detach().clone()
        assign(weight, value)
        return aside
    aside = weight.data
    weight.data = value.detach().to(weight.device, weight.dtype)
    return aside


def _slice(tensor: Tensor, dim: int, parts: int, part: int) -> Tensor:
    """Part `part` of `parts`, as torch cuts: equal parts rounded up, the last ones shorter or empty."""
    size = -(-tensor.shape[dim] // parts)
    start = min(part * size, tensor.shape[dim])
    return tensor.narrow(dim, start, min(size, tensor.shape[dim] - start))
