"""Who sees whom in a row, as the kinds of mask that attention implementations take.

A place sees the places before it of the same unit that are part of the prompt or of its own branch, and itself. In a
layer with a sliding window of w, it sees only those fewer than w *positions* away: in a shared row the second branch
stands far from the prompt's end and is its neighbour all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    rows, width = layout.units.shape
    row = torch.arange(rows, device=layout.units.device)[:, None, None]
    place = torch.arange(width, device=layout.units.device)
    return _rule(layout, window)(row, row, place[None, :, None], place[None, None, :])[:, None]


def additive(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """The mask as numbers to be added to attention scores: 0 where visible, the most negative number elsewhere.

    What eager attention needs: it would add a boolean mask as ones and zeros, without a word.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def block_mask(layout: Layout, window: int | None = None) -> Any:  # Any: BlockMask is not in every version of torch
    """The same rule as a block mask of flex attention, which skips blocks in which nothing is visible."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, width = layout.units.shape
    device = str(layout.units.device)
    return create_block_mask(_rule(layout, window), B=rows, H=None, Q_LEN=width, KV_LEN=width, device=device)


def _rule(layout: Layout, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule at the head of this file, as a function of row, attention head, seeing and seen place."""
    reach = layout.input_ids.shape[1] if window is None else window
    return partial(_sees, (layout.units, layout.branches, layout.position_ids), reach)


def _sees(
    row_tables: tuple[Tensor, Tensor, Tensor], reach: int, row: Tensor, head: Tensor, query: Tensor, key: Tensor
) -> Tensor:
    units, branches, positions = row_tables
    same_unit = (units[row, query] == units[row, key]) & (units[row, key] >= 0)
    seen = (branches[row, key] == PROMPT) | (branches[row, key] == branches[row, query])
    near = positions[row, query] - positions[row, key] < reach
    return (same_unit & seen & near & (key <= query)) | (query == key)
