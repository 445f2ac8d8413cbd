"""One gradient for a matrix that is embedding and head at once.

Left alone, each of the two makes a gradient of the size of the vocabulary, and autograd adds them: twice that memory
and two passes over it, at the end of every backward pass. But the head's is made first, and the embedding's has few
rows that are not 0: so the head leaves its gradient here, and the embedding adds its rows to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from preference.logprobs.head import Handover, LinearHead
from preference.logprobs.split import SplitModel
from preference.replaced import replaced


@contextmanager
def one_gradient(split: SplitModel) -> Iterator[SplitModel]:
    """Inside, a pass of the trunk looks its tokens up so that the head of what is given can leave its gradient.

    Where the two are not one plain matrix that is trained, nothing changes.

    Args:
        split: of `parts_of`. The head has to be used for the hidden states of this one pass.
    """
    embedding = _tied(split)
    if embedding is None or not isinstance(split.head, LinearHead) or not torch.is_grad_enabled():
        yield split
        return
    handover = Handover()
    with replaced(embedding, partial(_look_up, embedding, handover)):
        yield replace(split, head=replace(split.head, handover=handover))


def _tied(split: SplitModel) -> nn.Embedding | None:
    """The embedding, if it is nothing but a look-up in the head's own matrix, and that is trained."""
    trunk: Any = split.trunk  # Any: what transformers adds to a module is asked for by name
    try:
        embedding = trunk.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    plain = type(embedding) is nn.Embedding and "forward" not in vars(embedding)
    if not plain or not isinstance(split.head, LinearHead) or embedding.weight is not split.head.weight:
        return None
    rows = embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
    return embedding if rows and embedding.weight.requires_grad else None


def _look_up(embedding: nn.Embedding, handover: Handover, ids: Int[Tensor, "*b t"]) -> Float[Tensor, "*b t d"]:
    return _LookUp.apply(embedding.weight, ids, embedding.padding_idx, handover)


class _LookUp(torch.autograd.Function):
    """Rows of a matrix, whose gradient is added to what the head left."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None, handover: Handover) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.handover, ctx.shape, ctx.dtype = padding, handover, weight.shape, weight.dtype
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  the decorator hides names of parameters
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        if ctx.padding is not None:
            gradient = gradient.masked_fill((ids == ctx.padding)[..., None], 0.0)
        total = ctx.handover.take()
        if total is None:  # a pass whose tokens were not scored by this head
            total = torch.zeros(ctx.shape, dtype=gradient.dtype, device=gradient.device)
        total.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(total.dtype))
        return total.to(ctx.dtype), None, None, None
