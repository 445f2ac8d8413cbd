"""The gradient of the head's weight and bias, slice by slice of the vocabulary, in the memory of what was kept for it.

In the notation of `function.py`:

    dL/dW = sum_t [ sum_j g_j s_j onehot(id_j) - (sum_j g_j) p s ] h[t]^T
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from preference.logprobs.slices import Product, local_ids


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a forward pass kept of some tokens.

    Attributes:
        table: exponentials of the logits, times the slope of scale and soft cap.
        references: for each slice of the vocabulary, the logits that its exponentials are relative to.
    """

    table: Float[Tensor, "v n"]
    references: list[Float[Tensor, "n"]]

    def as_gradient(self, width: int) -> Float[Tensor, "v d"] | None:
        """The same memory as a gradient; None if it is too small.

        With d <= n, the gradient of each slice ends before the exponentials of the next one begin.
        """
        stride = self.table.stride(0)
        return self.table.as_strided((len(self.table), width), (width, 1)) if width <= stride else None


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the gradients need of each token.

    Attributes:
        ids: wanted entries.
        norms: logsumexp of the logits.
        at_ids: g s of the wanted entries.
        total: sum of g.
    """

    ids: Int[Tensor, "n k"]
    norms: Float[Tensor, "n"]
    at_ids: Float[Tensor, "n k"]
    total: Float[Tensor, "n"]

    def of(self, rows: slice) -> Tokens:
        """Some of them."""
        return Tokens(ids=self.ids[rows], norms=self.norms[rows], at_ids=self.at_ids[rows], total=self.total[rows])


class HeadGradient:
    """The gradients, in float32 or better.

    Attributes:
        weight: None if it is not needed.
        bias: None if it is not needed.

    Args:
        matrix: W.
        kept: of the tokens that are added first, or None. It is used up.
        precise: dtype of the gradients.
        weight: whether that of the weight is needed.
        bias: whether that of the bias is needed.
    """

    weight: Float[Tensor, "v d"] | None
    bias: Float[Tensor, "v"] | None

    def __init__(
        self, matrix: Float[Tensor, "v d"], kept: Kept | None, precise: torch.dtype, weight: bool, bias: bool
    ) -> None:
        inside = kept.as_gradient(matrix.shape[1]) if kept is not None and weight else None
        apart = torch.empty_like(matrix, dtype=precise) if weight and inside is None else None
        self.weight = apart if inside is None else inside
        self.bias = torch.empty(len(matrix), dtype=precise, device=matrix.device) if bias else None
        self._kept, self._first = kept, True

    def add(self, work: Product, tokens: Tokens) -> None:
        """Adds the part of some tokens. The first part is written, not added: zeros in a matrix of all the vocabulary
        are a pass over its memory.
        """
        for number, part in enumerate(work.slices):
            push = _again(work, part, tokens) if self._kept is None else _pushes(self._kept, number, part, tokens)
            local, within = local_ids(tokens.ids, part)
            push.scatter_add_(0, local, torch.where(within, tokens.at_ids.T, 0.0))
            if self.bias is not None:
                self.bias[part] = push.sum(dim=1) if self._first else self.bias[part] + push.sum(dim=1)
            if self.weight is not None and self._first:
                self.weight[part] = work.with_states(push)  # made elsewhere: its place may be that of `push`
            elif self.weight is not None:
                work.add_states(self.weight[part], push)
        self._kept, self._first = None, False


def _pushes(kept: Kept, number: int, part: slice, tokens: Tokens) -> Float[Tensor, "c n"]:
    """-(sum_j g_j) p s of a slice, in the memory of its exponentials."""
    return kept.table[part].mul_((kept.references[number] - tokens.norms).exp_().mul_(-tokens.total))


def _again(work: Product, part: slice, tokens: Tokens) -> Float[Tensor, "c n"]:
    """The same of a slice that was not kept."""
    logits = work.logits(part, work.room("logits", part))
    place = logits if work.head.softcap is None else work.room("exponentials", part)
    weights = torch.sub(logits, tokens.norms, out=place).exp_()
    return work.sloped(weights, logits).mul_(-tokens.total)
