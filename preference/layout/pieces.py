"""Attention of rows in pieces, without most of the pairs of places that do not see each other.

In a row of t places about half of the t x t scores are of places that come later, and with several units or branches
in it still fewer count. The processor's kernel computes all of them under any mask; under its causal flag too, up to
512 places. So queries are taken in pieces, each with the keys that one of its places sees in one row at least:

    softmax(s q_i k_J' + mask_iJ) v_J,        J = columns that piece i sees

What is left out are zeros of the softmax: the result is the same, to rounding, whatever the mask; windows and rows of
several prompts included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from preference.layout.masks import additive

TILE = 64
"""Places of a piece. Keys that none of them sees are left out from gaps of this width on."""

_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
"""What `scaled_dot_product_attention` runs on the processor; under its own name it gives the softmax's sums as well."""

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Neighbouring queries and what they see: columns, from the first to before the last.

    Attributes:
        first, last: of the queries.
        keys: of the keys, one range after the other.
    """

    first: int
    last: int
    keys: Ranges

    @property
    def pairs(self) -> int:
        """Scores of one row and head."""
        return (self.last - self.first) * sum(last - first for first, last in self.keys)


def pieces_of(
    mask: Bool[Tensor, "b 1 t t"], wanted: Int[Tensor, "_"] | None = None, *, tile: int = TILE
) -> tuple[Piece, ...]:
    """Pieces that hold every wanted query.

    Args:
        mask: who sees whom, of `preference.layout.visible`.
        wanted: flat places (row * t + column) whose result is read; None = all.
        tile: places of a piece.
    """
    seen = mask.any(dim=0)[0]
    width = len(seen)
    found: list[Piece] = []
    for column in range(width) if wanted is None else (wanted % width).unique().tolist():
        if not found or column >= found[-1].last:
            last = min(column + tile, width)
            found.append(Piece(first=column, last=last, keys=_ranges(seen[column:last].any(dim=0), tile)))
    return tuple(found)


def _ranges(seen: Bool[Tensor, "t"], gap: int) -> Ranges:
    """Ranges that hold all that is seen; what lies between two of them is at least `gap` wide."""
    columns = seen.nonzero().flatten()
    wide = columns.diff() > gap
    firsts = torch.cat([columns[:1], columns[1:][wide]]).tolist()
    lasts = torch.cat([columns[:-1][wide], columns[-1:]]).tolist()
    return tuple((first, last + 1) for first, last in zip(firsts, lasts))


def masks_of(mask: Bool[Tensor, "b 1 t t"], pieces: Sequence[Piece], dtype: torch.dtype) -> list[Tensor]:
    """The mask of each piece, as numbers to be added to its scores."""
    return [additive(_take(mask[:, :, piece.first : piece.last], piece.keys, 3), dtype) for piece in pieces]


def attend(
    query: Float[Tensor, "b h t d"],
    key: Float[Tensor, "b h t d"],
    value: Float[Tensor, "b h t d"],
    scale: float | None,
    pieces: Sequence[Piece],
    masks: Sequence[Tensor],
) -> Float[Tensor, "b h t d"]:
    """Attention on the processor of the queries that the pieces hold; zeros for all others.

    Args:
        query, key, value: of every head, contiguous along d.
        scale: s, None = 1 / sqrt(d).
        pieces: of `pieces_of`.
        masks: of `masks_of`.
    """
    return _Attention.apply(query, key, value, scale, pieces, masks)  # type: ignore[no-any-return]


def _take(values: Tensor, ranges: Ranges, dim: int) -> Tensor:
    parts = [values.narrow(dim, first, last - first) for first, last in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


class _Attention(torch.autograd.Function):
    """See `attend`. The gradients of keys and values collect in one tensor each."""

    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's context
        query: Float[Tensor, "b h t d"],
        key: Float[Tensor, "b h t d"],
        value: Float[Tensor, "b h t d"],
        scale: float | None,
        pieces: Sequence[Piece],
        masks: Sequence[Tensor],
    ) -> Float[Tensor, "b h t d"]:
        kernel = getattr(torch.ops.aten, _KERNEL)
        out, sums = _zeros(query), []
        for piece, mask in zip(pieces, masks, strict=True):
            rows = slice(piece.first, piece.last)
            keys, values = _take(key, piece.keys, 2), _take(value, piece.keys, 2)
            out[:, :, rows], logsumexp = kernel(query[:, :, rows], keys, values, attn_mask=mask, scale=scale)
            sums.append(logsumexp)
        ctx.save_for_backward(query, key, value, out, *sums)
        ctx.scale, ctx.pieces, ctx.masks = scale, pieces, masks
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  the decorator hides names of parameters
        ctx: Any,  # Any: torch's context
        gradient: Float[Tensor, "b h t d"],
    ) -> tuple[Tensor | None, ...]:
        kernel = getattr(torch.ops.aten, f"{_KERNEL}_backward")
        query, key, value, out, *sums = ctx.saved_tensors
        by_query, by_key, by_value = _zeros(query), _zeros(key), _zeros(value)
        for piece, mask, logsumexp in zip(ctx.pieces, ctx.masks, sums, strict=True):
            rows = slice(piece.first, piece.last)
            keys, values = _take(key, piece.keys, 2), _take(value, piece.keys, 2)
            given = (gradient[:, :, rows], query[:, :, rows], keys, values, out[:, :, rows], logsumexp)
            by_query[:, :, rows], *parts = kernel(*given, 0.0, False, attn_mask=mask, scale=ctx.scale)
            sizes = [last - first for first, last in piece.keys]
            for whole, part in zip((by_key, by_value), parts, strict=True):
                for (first, last), some in zip(piece.keys, part.split(sizes, dim=2)):
                    whole[:, :, first:last] += some
        return by_query, by_key, by_value, None, None, None


def _zeros(like: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t d"]:
    """In memory place by place, as projections make them and take them."""
    rows, heads, width, size = like.shape
    return like.new_zeros(rows, width, heads, size).transpose(1, 2)
