"""Who sees whom in a row, as the kinds of mask that attention implementations take.

A place sees the places before it of the same unit that are part of the prompt or of its own branch, and itself. In a
layer with a sliding window of w, it sees only those fewer than w *positions* away: in a shared row the second branch
stands far from the prompt's end and is its neighbour all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from preference.layout.rows import PROMPT, Layout


def visible(layout: Layout, window: int | None = None) -> Bool[Tensor, "b 1 t t"]:
    """Which place (row of the last two axes) sees which (column): the boolean mask of `scaled_dot_product_attention`.

    Padding sees itself only, because a softmax over nothing is NaN.

    Args:
        layout: of one of the three kinds.
        window: w of a layer with a sliding window; None = no limit.
    """
    units, branches, positions = layout.units, layout.branches, layout.position_ids
    columns = torch.arange(units.shape[1], device=units.device)
    same_unit = (units[:, :, None] == units[:, None, :]) & (units[:, None, :] >= 0)
    seen = (branches[:, None, :] == PROMPT) | (branches[:, None, :] == branches[:, :, None])
    mask = same_unit & seen & (columns[None, None, :] <= columns[None, :, None])
    if window is not None:
        mask &= positions[:, :, None] - positions[:, None, :] < window
    return (mask | torch.eye(len(columns), dtype=torch.bool, device=units.device))[:, None]


def additive(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """The mask as numbers to be added to attention scores: 0 where visible, the most negative number elsewhere.

    What eager attention needs: it would add a boolean mask as ones and zeros, without a word.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def block_mask(layout: Layout, window: int | None = None) -> Any:  # Any: BlockMask is not in every version of torch
    """The same rule as a block mask of flex attention, which skips blocks in which nothing is visible."""
    from torch.nn.attention.flex_attention import create_block_mask

    units, branches, positions = layout.units, layout.branches, layout.position_ids

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_unit = (units[row, query] == units[row, key]) & (units[row, key] >= 0)
        seen = (branches[row, key] == PROMPT) | (branches[row, key] == branches[row, query])
        allowed = same_unit & seen & (key <= query)
        if window is not None:
            allowed = allowed & (positions[row, query] - positions[row, key] < window)
        return allowed | (query == key)

    rows, width = units.shape
    return create_block_mask(rule, B=rows, H=None, Q_LEN=width, KV_LEN=width, device=str(units.device))
