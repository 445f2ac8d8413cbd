"""On a CPU: the one large block that every step needs, kept between steps at one place.

A block that is given back to the C library leaves a gap, in which the next step's smaller tensors are made before the
block is wanted again: then it takes new memory, although as much lies free in pieces. Accelerators have allocators of
their own against that. The block is as large as the largest that was asked for, and stays until the process ends.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FEWEST = 2**24
"""Bytes of a block that is kept; smaller ones find room."""

_kept: list[torch.UntypedStorage] = []


def lend(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "r c"]:
    """An empty tensor, in the block of before if nobody has it any more: neither what was lent nor a view of it."""
    size = rows * columns * dtype.itemsize
    count = getattr(torch._C, "_storage_Use_Count", None)
    if device.type != "cpu" or size < FEWEST or count is None:
        return torch.empty(rows, columns, dtype=dtype, device=device)
    free = _kept and count(_kept[0]._cdata) == 1
    if not free or _kept[0].nbytes() < size:
        _kept.clear()  # before there is another
        _kept.append(torch.empty(size, dtype=torch.uint8).untyped_storage())
    return torch.empty(0, dtype=dtype).set_(_kept[0], 0, (rows, columns), (columns, 1))
