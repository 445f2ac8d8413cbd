"""The autograd function behind `chunked.py`: log-probabilities of wanted entries and their gradients.

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

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from preference.logprobs.extras import Extra
from preference.logprobs.gradient import HeadGradient, Kept, Tokens
from preference.logprobs.head import LinearHead, product_dtype
from preference.logprobs.slices import ALIGNED, Product, Running, aligned, entries, filled, pieces, slope_of

_GATHERED = 2**24
"""Numbers of the rows of W that are gathered at once."""


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
        extras: tuple[Extra, ...],
        budget: int,
    ) -> tuple[Tensor, ...]:
        """Log-probabilities [m, k], and one [m] for each extra."""
        hidden_grad, weight_grad, bias_grad = ctx.needs_input_grad[:3]
        ctx.head, ctx.narrow, ctx.count = head, product_dtype(head, hidden), len(hidden)
        hidden, ids = filled(hidden), filled(ids)
        room, others = _rooms(weight, ctx.narrow, budget)
        room = room if weight_grad or bias_grad else 0
        ctx.blocks, found = _blocks(len(hidden), room, others), []
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in ctx.blocks:
                work = Product(hidden[rows], weight, bias, head, ctx.narrow)
                found.append(_forward(work, ids[rows], extras, hidden_grad, keep=rows.stop <= room))
        ctx.kept = found[0].kept
        picked, norms = torch.cat([block.picked for block in found]), torch.cat([block.norms for block in found])
        pulls = torch.cat([block.pulls for block in found if block.pulls is not None]) if hidden_grad else None
        ctx.save_for_backward(hidden, weight, bias, ids, norms, slope_of(picked, head), pulls)
        values = tuple(torch.cat(parts)[: ctx.count] for parts in zip(*(block.extras for block in found), strict=True))
        ctx.mark_non_differentiable(*values)
        return (picked - norms[:, None])[: ctx.count], *values

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  the decorator hides names of parameters
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, weight and bias."""
        hidden, weight, bias, ids, norms, slopes, pulls = ctx.saved_tensors
        of_wanted = filled(gradients[0])
        tokens = Tokens(ids=ids, norms=norms, at_ids=of_wanted * slopes, total=of_wanted.sum(dim=1))
        needed = ctx.needs_input_grad[1], bias is not None and ctx.needs_input_grad[2]
        d_hidden, made = None, None
        with torch.autocast(hidden.device.type, enabled=False):
            if pulls is not None:
                d_hidden = _hidden_gradient(weight, tokens, pulls).to(hidden.dtype)[: ctx.count]
            if any(needed):
                made = HeadGradient(weight, ctx.kept, norms.dtype, *needed)
                ctx.kept = None  # used up
                for rows in ctx.blocks:
                    made.add(Product(hidden[rows], weight, bias, ctx.head, ctx.narrow), tokens.of(rows))
        of_weight, of_bias = (None, None) if made is None else (made.weight, made.bias)
        if of_weight is not None and ctx.head.handover is not None:
            ctx.head.handover.leave(ctx, of_weight)
            of_weight = None
        return (
            d_hidden,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None or bias is None else of_bias.to(bias.dtype),
            *[None] * 4,
        )


@dataclass(frozen=True)
class _Block:
    """Some tokens after the whole vocabulary."""

    picked: Float[Tensor, "n k"]
    norms: Float[Tensor, "n"]
    extras: tuple[Tensor, ...]
    pulls: Float[Tensor, "n d"] | None
    kept: Kept | None


def _rooms(weight: Float[Tensor, "v d"], narrow: torch.dtype, budget: int) -> tuple[int, int]:
    """How many tokens' exponentials fit the budget, and of how many others it fits a slice."""
    precise = torch.promote_types(narrow, torch.float32).itemsize
    # Of a slice: logits and exponentials, each with a narrow copy if the product is narrow.
    copies = 2 * (precise + (narrow.itemsize if narrow.itemsize < precise else 0))
    size = entries(weight.device.type, len(weight))
    return aligned(budget // (len(weight) * precise)), max(ALIGNED, aligned(budget // (copies * size)))


def _blocks(count: int, room: int, others: int) -> list[slice]:
    """The tokens whose exponentials are kept are the first block; of the others slices are held, so they are few."""
    kept = min(room, count)
    rest = pieces(count - kept, others) if kept < count or not kept else iter(())
    return [*([slice(0, kept)] if kept else []), *(slice(kept + part.start, kept + part.stop) for part in rest)]


def _forward(work: Product, ids: Tensor, extras: tuple[Extra, ...], pulled: bool, *, keep: bool) -> _Block:
    running = Running.start(work, ids, len(extras), pulled)
    table = work.table() if keep else None
    references = []
    for part in work.slices:
        running.see(work, part, ids, extras, None if table is None else table[part])
        references.append(running.highest)
    finished = zip(extras, running.moments, strict=True)
    return _Block(
        picked=running.picked.T,
        norms=running.highest + running.total.log(),
        extras=tuple(extra.finish(moment, running.total, running.highest) for extra, moment in finished),
        pulls=None if running.pulls is None else running.pulls.div_(running.total[:, None]).to(work.narrow),
        kept=None if table is None else Kept(table=table, references=references),
    )


def _hidden_gradient(weight: Float[Tensor, "v d"], tokens: Tokens, pulls: Tensor) -> Float[Tensor, "m d"]:
    gradient = pulls.to(tokens.total.dtype) * -tokens.total[:, None]
    # Rows of W for k entries a token: k times the size of the hidden states, so in pieces.
    for rows in pieces(len(gradient), _GATHERED // (tokens.ids.shape[1] * weight.shape[1])):
        wanted = weight[tokens.ids[rows]].to(gradient.dtype)
        gradient[rows] += torch.einsum("mk,mkd->md", tokens.at_ids[rows], wanted)
    return gradient
