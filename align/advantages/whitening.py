"""Whitening over all trained positions of a batch. Pure."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def whitened(
    values: Float[Tensor, "*n"], trained: Bool[Tensor, "*n"], *, unbiased: bool, eps: float, standardise: bool = True
) -> Float[Tensor, "*n"]:
    """Values in standard deviations from their mean, both over the positions where `trained` is true.

        (x - mean) / sqrt(var + eps)        or x - mean without `standardise`

    Args:
        values: any unit; what stands elsewhere does not matter.
        trained: positions that count.
        unbiased: n - 1 (true) or n (false) in the variance.
        eps: added to the variance, in the unit of the values squared.
        standardise: divide.

    Returns:
        float64, 0 elsewhere; 0 everywhere if fewer than two positions count or all of them hold one number.
    """
    counted = values[trained].double()
    if len(counted) < 2 or counted.min() == counted.max():
        return torch.zeros_like(values, dtype=torch.float64)
    centred = counted - counted.mean()
    variance = centred.square().sum() / (len(counted) - float(unbiased))
    whole = torch.zeros_like(values, dtype=torch.float64)
    whole[trained] = centred / (variance + eps).sqrt() if standardise else centred
    return whole
