"""A mask that has attention computed in pieces: not the pairs of places that see each other in no row.

It is an ordinary boolean mask that models hand on to `scaled_dot_product_attention`, and answers there for itself. So
no configuration changes, a layer that is computed again does it again, and a model that makes another mask of it gets
that one, and the usual attention. That runs, too, where pieces would not be the same, or are not known to pay: on other
devices and in half precision (not measured), with dropout, for few scores.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional

from align.engine.blocks import SHARDED_BY, find_blocks
from preference.layout.pieces import TILE, Piece, attend, masks_of, pieces_of

_PAYS = 2**19
"""Scores (rows x heads x t x t) from which pieces save more than they cost."""

_DTYPES = (torch.float32, torch.float64)


class PiecewiseMask(Tensor):
    """A boolean mask [b, 1, t, t] with its pieces; what is made of it is a plain tensor.

    Attributes:
        pieces: of `pieces_of`.
        places: of a piece.
        least: with fewer scores than that, attention is computed whole; 0 = never.
        uses: how many pieces were computed, each time.
    """

    pieces: tuple[Piece, ...]
    places: int
    least: int
    uses: list[int]
    _numbers: dict[torch.dtype, list[Tensor]]

    def reading(self, read: Int[Tensor, "r"]) -> PiecewiseMask:
        """For attention that is read at these flat places only: elsewhere it may give zeros."""
        made = _with_pieces(self.as_subclass(Tensor), read, self.places, self.least)
        made.uses = self.uses
        return made

    def numbers(self, dtype: torch.dtype) -> list[Tensor]:
        """What each piece adds to its scores; made once for all layers."""
        if dtype not in self._numbers:
            self._numbers[dtype] = masks_of(self.as_subclass(Tensor), self.pieces, dtype)
        return self._numbers[dtype]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # Any: torch's own
        with torch._C.DisableTorchFunctionSubclass():
            run = _attention if func is functional.scaled_dot_product_attention else func
            return run(*args, **(kwargs or {}))


def piecewise(mask: Bool[Tensor, "b 1 t t"], *, tile: int = TILE, least: int = _PAYS) -> Tensor:
    """The mask with its pieces; or as it is, where there would be one piece only, or not on the processor.

    Args:
        mask: of `preference.layout.visible`.
        tile: places of a piece.
        least: scores from which attention is computed in pieces.
    """
    if mask.device.type != "cpu" or mask.shape[-1] < 2 * tile:
        return mask
    return _with_pieces(mask, None, tile, least)


def _with_pieces(mask: Tensor, wanted: Tensor | None, tile: int, least: int) -> PiecewiseMask:
    made = mask.as_subclass(PiecewiseMask)
    made.pieces, made.places, made.least = pieces_of(mask, wanted, tile=tile), tile, least
    made.uses, made._numbers = [], {}
    return made


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,  # Any: which of the arguments is the mask is not known yet
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,  # Any: scale, and what other versions of torch know
) -> Tensor:
    """`scaled_dot_product_attention`, in pieces if that is the same and pays."""
    mask, scale = attn_mask, more.get("scale")
    if not isinstance(mask, PiecewiseMask):
        return functional.scaled_dot_product_attention(query, key, value, mask, dropout_p, is_causal, **more)
    if dropout_p == 0 and not is_causal and _fits(mask, query, key, value):
        mask.uses.append(len(mask.pieces))
        return attend(query, key, value, scale, mask.pieces, mask.numbers(query.dtype))
    plain = mask.as_subclass(Tensor)
    return functional.scaled_dot_product_attention(query, key, value, plain, dropout_p, is_causal, **more)


def _fits(mask: PiecewiseMask, query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these are plain tensors of one shape, with as many places as the mask has, and work enough."""
    three = (query, key, value)
    alike = all(type(part) is Tensor and part.shape == query.shape and part.dtype == query.dtype for part in three)
    if not alike or query.dtype not in _DTYPES or query.device != mask.device or torch.is_autocast_enabled("cpu"):
        return False
    if query.dim() != 4 or (len(query), *query.shape[2:3]) != (len(mask), mask.shape[-1]):
        return False
    rows, heads, width, _ = query.shape
    # The kernel's threads share rows and heads among them: with fewer of these, smaller pieces would idle some.
    enough = rows * heads * width * width >= mask.least and rows * heads >= torch.get_num_threads()
    return all(part.stride(-1) == 1 for part in three) and (enough or mask.least == 0)


@cache
def same_as_torch(dtype: torch.dtype) -> bool:
    """Whether pieces give the results and the gradients of torch's own attention: by numbers, on some tiny rows.

    What runs inside of it is called by a name that torch does not promise to keep.
    """
    random = torch.Generator().manual_seed(0)
    rows, width = 2, 13
    whole = torch.rand(rows, 1, width, width, generator=random).lt(0.5).tril() | torch.eye(width, dtype=torch.bool)
    whole[:, :, 8:, 2:7] = False
    shape = (3, rows, 3, width, 8)
    given = torch.randn(shape, generator=random, dtype=dtype)
    weight = torch.randn(shape[1:], generator=random, dtype=dtype)
    found = []
    try:
        for mask in (whole, piecewise(whole, tile=4, least=0)):
            inputs = given.clone().requires_grad_()
            with torch.enable_grad(), torch.inference_mode(False):
                out = functional.scaled_dot_product_attention(*inputs.unbind(), attn_mask=mask)
                found.append(torch.cat([out.detach()[None], *torch.autograd.grad((out * weight).sum(), inputs)]))
    except Exception:  # whatever a version of torch raises that has no such kernel
        return False
    return bool(torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-5))


def compiled(trunk: nn.Module) -> bool:
    """Whether a model or some of its layers are compiled: tensors of a kind of their own are nothing for a compiler."""
    modules = (trunk, *find_blocks(trunk, SHARDED_BY))
    return any("forward" in vars(module) or module._compiled_call_impl is not None for module in modules)
