"""Backward recursions along a row. A masked position passes everything on and adds nothing."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def masked_discounted_scan(
    delta: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], factor: float | Float[Tensor, "n"]
) -> Float[Tensor, "n t"]:
    """Discounted sum from each position on, over the positions where `mask` is true.

        S_t = delta_t + factor * S_(next true position),    and S_t = S_(next true position) where mask is false

    Args:
        delta: any unit; what stands at false positions does not matter.
        mask: positions that add and that discount.
        factor: discount per true position, one number or one per row.
    """
    sums = torch.empty_like(delta.T)  # one row per position, so that a step of the recursion reads neighbours
    steps = zip(delta.T.contiguous().flip(0), mask.T.contiguous().flip(0), reversed(range(len(sums))), strict=True)
    carry = delta.new_zeros(len(delta))
    for value, counts, place in steps:
        carry = torch.where(counts, value + factor * carry, carry)
        sums[place] = carry
    return sums.T.contiguous()


def restarting_scan(delta: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], factor: float) -> Float[Tensor, "n t"]:
    """Discounted sum from each position on that starts again behind every gap of the mask.

    S_t = delta_t + factor * S_(t+1) * mask_(t+1)
    """
    sums = torch.empty_like(delta.T)
    carry = delta.new_zeros(len(delta))
    for place in reversed(range(len(sums))):
        sums[place] = delta[:, place] + factor * carry
        carry = torch.where(mask[:, place], sums[place], 0.0)
    return sums.T.contiguous()


def next_true(mask: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """Column of the next true position strictly behind each position; t (the width) if there is none."""
    n, width = mask.shape
    columns = torch.arange(width, device=mask.device)
    at_or_behind = torch.where(mask, columns, width).flip(1).cummin(dim=1).values.flip(1)
    return torch.cat([at_or_behind[:, 1:], at_or_behind.new_full((n, min(width, 1)), width)], dim=1)
