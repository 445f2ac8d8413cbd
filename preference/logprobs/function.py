"""The autograd function behind `chunked.py`: log-probabilities of wanted entries and their gradients, chunk by chunk.

For z = W h, p = softmax(z), upstream gradient g [m, k] of the k wanted entries and s the slope of scale and soft cap (1
without them):

    lp[t, j] = z[t, id_j] - logsumexp(z[t])
    dL/dh[t] = sum_j g_j s_j W[id_j] - (sum_j g_j) (p s) W          (p s) W knows nothing of g: made in the forward pass
    dL/dW    = sum_t [ sum_j g_j s_j onehot(id_j) - (sum_j g_j) p s ] h[t]^T          needs p again

So a frozen head (LoRA) costs two products and nothing is recomputed. A trained head costs three, and a fourth, the
logits again, for the chunks whose logits did not fit the budget: a small batch keeps them all, which is what plain
autograd would do. Plain tensor operations on every device, CUDA included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from align.objectives.units import precise
from preference.logprobs.head import LinearHead, finish, product_dtype


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
        hidden_grad, weight_grad, bias_grad = ctx.needs_input_grad[:3]
        dtype = product_dtype(head, hidden)
        states, matrix = hidden.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        # Logits of kept chunks and of the one in work: two numbers a token and entry each, beside the product itself.
        row_bytes = 8 * len(weight)
        kept: list[Tensor] = []
        outputs: list[tuple[Tensor, ...]] = []
        pulls: list[Tensor] = []
        room = budget if weight_grad or bias_grad else 0
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in chunks(len(hidden), budget // row_bytes):
                logits = _product(states[rows], matrix, offset, head)
                norm = logits.logsumexp(dim=1)
                picked = logits.gather(1, ids[rows])
                outputs.append((picked - norm[:, None], norm, picked, *[extra(logits, norm) for extra in extras]))
                if hidden_grad:
                    pulls.append(_sloped_softmax(logits, norm, head).to(dtype) @ matrix)
                if room >= logits.nbytes:
                    room -= logits.nbytes
                    kept.append(logits)
        log_probs, norms, picked, *values = (torch.cat(parts) for parts in zip(*outputs))
        ctx.save_for_backward(
            hidden, weight, bias, ids, norms, _slope(picked, head), torch.cat(pulls) if pulls else None, *kept
        )
        ctx.head, ctx.rows, ctx.dtype = head, budget // row_bytes, dtype
        ctx.mark_non_differentiable(*values)
        return log_probs, *values

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  the decorator hides names of parameters
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, norms, slopes, pulls, *kept = ctx.saved_tensors
        total = gradients[0].sum(dim=1)
        at_ids = gradients[0] * slopes
        with torch.autocast(hidden.device.type, enabled=False):
            d_hidden = None if pulls is None else _hidden_gradient(ctx, weight, ids, at_ids, total, pulls)
            d_weight, d_bias = None, None
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                d_weight, d_bias = _head_gradient(ctx, hidden, weight, bias, ids, norms, at_ids, total, kept)
        return (
            None if d_hidden is None else d_hidden.to(hidden.dtype),
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None or bias is None else d_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
        )


def _hidden_gradient(
    ctx: Any, weight: Tensor, ids: Tensor, at_ids: Tensor, total: Tensor, pulls: Tensor
) -> Float[Tensor, "m d"]:
    gradient = precise(pulls) * -total[:, None]
    # Rows of W for k entries a token: k times the size of the hidden states, so in pieces as well.
    for rows in chunks(len(ids), max(1, ctx.rows // ids.shape[1])):
        entries = weight[ids[rows]].to(gradient.dtype)
        gradient[rows] += torch.einsum("mk,mkd->md", at_ids[rows], entries)
    return gradient


def _head_gradient(
    ctx: Any,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    norms: Tensor,
    at_ids: Tensor,
    total: Tensor,
    kept: list[Tensor],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias, summed over chunks in float32 or better."""
    head: LinearHead = ctx.head
    states, matrix = hidden.to(ctx.dtype), weight.to(ctx.dtype)
    offset = None if bias is None else bias.to(ctx.dtype)
    d_weight = torch.zeros_like(weight, dtype=norms.dtype) if ctx.needs_input_grad[1] else None
    d_bias = torch.zeros_like(bias, dtype=norms.dtype) if bias is not None and ctx.needs_input_grad[2] else None
    for number, rows in enumerate(chunks(len(hidden), ctx.rows)):
        logits = kept[number] if number < len(kept) else _product(states[rows], matrix, offset, head)
        push = _sloped_softmax(logits, norms[rows], head).mul_(-total[rows, None])
        push.scatter_add_(1, ids[rows], at_ids[rows])
        if d_bias is not None:
            d_bias += push.sum(dim=0)
        if d_weight is not None and ctx.dtype == d_weight.dtype:
            d_weight.addmm_(push.T, states[rows])
        elif d_weight is not None:
            d_weight += push.to(ctx.dtype).T @ states[rows]
    return d_weight, d_bias


def _product(states: Tensor, matrix: Tensor, offset: Tensor | None, head: LinearHead) -> Float[Tensor, "c v"]:
    return finish(torch.nn.functional.linear(states, matrix, offset), head.scale, head.softcap)


def _sloped_softmax(logits: Tensor, norm: Tensor, head: LinearHead) -> Float[Tensor, "c v"]:
    """p s, in a tensor of its own."""
    probabilities = (logits - norm[:, None]).exp_()
    return probabilities if head.softcap is None and head.scale == 1.0 else probabilities.mul_(_slope(logits, head))


def _slope(logits: Tensor, head: LinearHead) -> Tensor:
    """Derivative of the logits by W h: scale, times 1 - (z / c)^2 under a soft cap."""
    if head.softcap is None:
        return torch.full_like(logits, head.scale)
    return head.scale * (1 - (logits / head.softcap).square())


def chunks(count: int, rows: int) -> Iterator[slice]:
    """At least one chunk, even of nothing, so that empty inputs keep their shapes."""
    rows = max(1, rows)
    yield from (slice(start, min(start + rows, count)) for start in range(0, max(count, 1), rows))
