"""Several rewards per sample to one score. Pure functions: values `[n, k]`, weights `[k]` or `[n, k]`, to `[n]`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_sum(
    values: Float[Tensor, "n k"], weights: Float[Tensor, "k"] | Float[Tensor, "n k"]
) -> Float[Tensor, "n"]:
    """Sum of the rewards, each times its weight.

        S_i = sum_k w_k r_ik        over the columns with w_k != 0

    A sample that lacks a reward of non-zero weight has no score: the sum of the others would not be comparable with
    its group's. A column of weight 0 is a metric and never matters, whatever is in it.

    Args:
        values: rewards, each in its own unit; NaN = not scored.
        weights: one per reward, or one per sample and reward. The weights carry the units: a weight of 1 on an
            aesthetic score (spread about 1) drowns a weight of 1 on a CLIP cosine (spread about 0.03).

    Returns:
        One score per sample, NaN where unscored, in the dtype of `values` (summed in float64).
    """
    weights = weights.double().expand(values.shape)
    total = torch.zeros(values.shape[0], dtype=torch.float64, device=values.device)
    # Column by column, so that equal rows have bit-equal sums wherever they stand; exact ties are worth zero advantage.
    for value, weight in zip(values.double().unbind(dim=1), weights.unbind(dim=1), strict=True):
        total = total + torch.where(weight == 0, 0.0, value * weight)
    return total.to(values.dtype)
