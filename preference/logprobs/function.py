"""The autograd function behind `chunked.py`: log-probabilities of wanted entries and their gradients, chunk by chunk.

For z = W h, p = softmax(z), upstream gradient g [m, k] of the k wanted entries and s the slope of scale and soft cap (1
without them):

    lp[t, j] = z[t, id_j] - logsumexp(z[t])
    dL/dh[t] = sum_j g_j s_j W[id_j] - (sum_j g_j) (p s) W          (p s) W knows nothing of g: made in the forward pass
    dL/dW    = sum_t [ sum_j g_j s_j onehot(id_j) - (sum_j g_j) p s ] h[t]^T          needs p again

So a frozen head (LoRA) costs two products and nothing is recomputed. A trained head costs three, and a fourth, the
logits again, for the tokens whose p s did not fit the budget. Logits become p s, and p s the gradient, in the memory
that they stand in; run again over the same graph, the backward pass computes them anew. Plain tensor operations on
every device, CUDA included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from preference.logprobs.head import LinearHead, finish_, product_dtype


class ChunkedLogProbs(torch.autograd.Function):
    """The formulas at the head of this file."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        head: LinearHead,
        extras: tuple[Callable[[Tensor, Tensor], Tensor], ...],
        budget: int,
    ) -> tuple[Tensor, ...]:
        """Log-probabilities [m, k], and one [m] for each extra."""
        hidden_grad, weight_grad, bias_grad = ctx.needs_input_grad[:3]
        work = _Chunks(hidden, weight, bias, head, budget)
        room = work.room(budget) if weight_grad or bias_grad else 0
        apart = bool(extras) or head.softcap is not None  # logits are read after their exponentials are there
        with torch.autocast(hidden.device.type, enabled=False):
            # Results stand in tensors made once: small ones in the gaps of freed chunks would break up the memory.
            picked = torch.empty_like(ids, dtype=work.precise)
            norms = torch.empty(len(ids), dtype=work.precise, device=ids.device)
            totals = torch.empty_like(norms)  # sums of the exponentials
            values = tuple(torch.empty_like(norms) for _ in extras)
            pulls = torch.empty_like(hidden, dtype=work.narrow) if hidden_grad else None
            kept = [work.table(room)] if room else []
            for rows in work.rows(room, whole=not apart):
                place = kept[0][rows] if kept and rows.stop <= room else None
                logits = work.logits(rows, None if apart else place)
                highest = logits.amax(dim=1)
                picked[rows] = logits.gather(1, ids[rows])
                weights = work.exponentials(logits, highest, place if apart else logits)
                totals[rows] = weights.sum(dim=1)
                norms[rows] = highest + totals[rows].log()
                for value, extra in zip(values, extras):
                    value[rows] = extra(logits, norms[rows])
                if place is not None or pulls is not None:
                    weights = work.sloped(weights, logits)
                if pulls is not None:
                    pulls[rows] = (weights.to(work.narrow) @ work.matrix) / totals[rows, None]
        ctx.save_for_backward(hidden, weight, bias, ids, norms, totals, slope_of(picked, head), pulls)
        ctx.head, ctx.budget, ctx.narrow, ctx.kept = head, budget, work.narrow, kept
        ctx.mark_non_differentiable(*values)
        return picked - norms[:, None], *values

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  the decorator hides names of parameters
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, weight and bias."""
        hidden, weight, bias, ids, norms, totals, slopes, pulls = ctx.saved_tensors
        total, at_ids = gradients[0].sum(dim=1), gradients[0] * slopes
        d_hidden, d_weight, d_bias = None, None, None
        with torch.autocast(hidden.device.type, enabled=False):
            work = _Chunks(hidden, weight, bias, ctx.head, ctx.budget, ctx.narrow)
            if pulls is not None:
                d_hidden = _hidden_gradient(work, weight, ids, at_ids, total, pulls).to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                d_weight = torch.empty_like(weight, dtype=work.precise)
            if bias is not None and ctx.needs_input_grad[2]:
                d_bias = torch.empty_like(bias, dtype=work.precise)
            if d_weight is not None or d_bias is not None:
                _head_gradients(work, ids, norms, at_ids, total, (totals, ctx.kept), d_weight, d_bias)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None or bias is None else d_bias.to(bias.dtype),
            *[None] * 4,
        )


class _Chunks:
    """Logits chunk by chunk, in buffers that every chunk uses again.

    Attributes:
        narrow: dtype of the products.
        precise: dtype of logits and sums, float32 or better.
        states: hidden states, narrow.
        matrix: W, narrow.
        count: rows of a chunk.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: LinearHead,
        budget: int,
        narrow: torch.dtype | None = None,
    ) -> None:
        self.head = head
        self.narrow = product_dtype(head, hidden) if narrow is None else narrow
        self.precise = torch.promote_types(self.narrow, torch.float32)
        self.states, self.matrix = hidden.to(self.narrow), weight.to(self.narrow)
        self.bias = None if bias is None else bias.to(self.narrow)
        # Logits and their exponentials, each with a narrow copy if the product is narrow.
        copies = 2 * (self.precise.itemsize + (self.narrow.itemsize if self.narrow != self.precise else 0))
        self.count = min(max(1, budget // (copies * len(weight))), max(1, len(hidden)))
        self._logits: Tensor | None = None
        self._exponentials: Tensor | None = None

    def room(self, budget: int) -> int:
        """How many tokens' exponentials fit the budget."""
        return min(len(self.states), budget // (len(self.matrix) * self.precise.itemsize))

    def rows(self, kept: int, *, whole: bool) -> Iterator[slice]:
        """Slices of the tokens; the first `kept` and the others are cut apart.

        The first are one piece if `whole`: everything is done where they stand. Narrow products make copies.
        """
        if kept:
            yield from chunks(kept, kept if whole and self.narrow == self.precise else self.count)
        if kept < len(self.states) or not kept:
            others = chunks(len(self.states) - kept, self.count)
            yield from (slice(kept + part.start, kept + part.stop) for part in others)

    def table(self, rows: int) -> Float[Tensor, "c v"]:
        """Room for the logits of some tokens."""
        return torch.empty(rows, len(self.matrix), dtype=self.precise, device=self.states.device)

    def logits(self, rows: slice, out: Float[Tensor, "c v"] | None = None) -> Float[Tensor, "c v"]:
        """Logits of a chunk, in a given place or in a buffer."""
        states = self.states[rows]
        if out is None:
            self._logits = self._at_least(self._logits, len(states))
            out = self._logits[: len(states)]
        if self.narrow == self.precise:
            torch.mm(states, self.matrix.T, out=out)
        else:
            out.copy_(states @ self.matrix.T)
        if self.bias is not None:
            out.add_(self.bias)
        return finish_(out, self.head.scale, self.head.softcap)

    def exponentials(
        self, logits: Float[Tensor, "c v"], shift: Float[Tensor, "c"], out: Float[Tensor, "c v"] | None
    ) -> Float[Tensor, "c v"]:
        """exp(z - shift), in a given place, which may be that of the logits, or in the other buffer."""
        if out is None:
            self._exponentials = self._at_least(self._exponentials, len(logits))
            out = self._exponentials[: len(logits)]
        return torch.sub(logits, shift[:, None], out=out).exp_()

    def sloped(self, weights: Float[Tensor, "c v"], logits: Float[Tensor, "c v"]) -> Float[Tensor, "c v"]:
        """Weights times the slope of scale and soft cap, in place."""
        if self.head.softcap is None:
            return weights if self.head.scale == 1.0 else weights.mul_(self.head.scale)
        return weights.mul_(slope_of(logits, self.head))

    def _at_least(self, buffer: Tensor | None, rows: int) -> Tensor:
        return self.table(rows) if buffer is None or len(buffer) < rows else buffer


def slope_of(logits: Tensor, head: LinearHead) -> Tensor:
    """Derivative of the logits by W h: scale, times 1 - (z / c)^2 under a soft cap."""
    if head.softcap is None:
        return torch.full_like(logits, head.scale)
    return head.scale * (1 - (logits / head.softcap).square())


def _hidden_gradient(
    work: _Chunks, weight: Tensor, ids: Tensor, at_ids: Tensor, total: Tensor, pulls: Tensor
) -> Float[Tensor, "m d"]:
    gradient = pulls.to(work.precise) * -total[:, None]
    # Rows of W for k entries a token: k times the size of the hidden states, so in pieces as well.
    for rows in chunks(len(ids), max(1, work.count // ids.shape[1])):
        entries = weight[ids[rows]].to(work.precise)
        gradient[rows] += torch.einsum("mk,mkd->md", at_ids[rows], entries)
    return gradient


def _head_gradients(
    work: _Chunks,
    ids: Tensor,
    norms: Tensor,
    at_ids: Tensor,
    total: Tensor,
    stored: tuple[Tensor, list[Tensor]],
    d_weight: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """The gradients of weight and bias into these tensors, chunk by chunk, in float32 or better. The first chunk is
    written, not added: zeros in a matrix of all the vocabulary are a pass over its memory.

    `stored`: sums of each token's exponentials, and the sloped exponentials of the first tokens, which are used up.
    """
    sums, kept = stored
    room = len(kept[0]) if kept else 0
    for number, rows in enumerate(work.rows(room, whole=True)):
        before = float(number > 0)
        if kept and rows.stop <= room:
            push = kept[0][rows].mul_((-total[rows] / sums[rows])[:, None])
        else:
            kept.clear()  # before there is a buffer for the others
            logits = work.logits(rows)
            weights = work.exponentials(logits, norms[rows], logits if work.head.softcap is None else None)
            push = work.sloped(weights, logits).mul_(-total[rows, None])
        push.scatter_add_(1, ids[rows], at_ids[rows])
        if d_bias is not None:
            _accumulate(d_bias, push.sum(dim=0), before)
        if d_weight is not None and work.narrow == work.precise:
            d_weight.addmm_(push.T, work.states[rows], beta=before)
        elif d_weight is not None:
            _accumulate(d_weight, push.to(work.narrow).T @ work.states[rows], before)
        del push
    kept.clear()


def _accumulate(total: Tensor, part: Tensor, before: float) -> None:
    """total = before * total + part, where `before` 0 reads nothing of it."""
    if before:
        total += part
    else:
        total.copy_(part)


def chunks(count: int, rows: int) -> Iterator[slice]:
    """At least one chunk, even of nothing, so that empty inputs keep their shapes."""
    rows = max(1, rows)
    yield from (slice(start, min(start + rows, count)) for start in range(0, max(count, 1), rows))
