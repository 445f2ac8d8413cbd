"""Log-probabilities from hidden states, without ever holding the logits [m, v] of all tokens.

Tokens go through the head in chunks that fit a memory budget. For z = W h, p = softmax(z), upstream gradient g [m, k]
of the k wanted entries and s the slope of scale and soft cap (1 without them):

    lp[t, j] = z[t, id_j] - logsumexp(z[t])
    dL/dh[t] = sum_j g_j s_j W[id_j] - (sum_j g_j) (p s) W          (p s) W knows nothing of g: made in the forward pass
    dL/dW    = sum_t [ sum_j g_j s_j onehot(id_j) - (sum_j g_j) p s ] h[t]^T          needs p again

So a frozen head (LoRA) costs two products and nothing is recomputed. A trained head costs three, and a fourth, the
logits again, for the chunks whose logits did not fit the budget: a small batch keeps them all, which is what plain
autograd would do. Plain tensor operations on every device, CUDA included; log-softmax in float32 or better whatever the
network runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from align.objectives.units import choose, precise
from preference.logprobs.head import Head, LinearHead, finish, product_dtype
from preference.logprobs.tokens import log_probs_of

CPU_BUDGET = 128 * 2**20
"""Bytes for logits on a CPU: chunks of a few hundred tokens for a vocabulary of 50,000."""

ACCELERATOR_BUDGET = 2**30
"""Bytes for logits on an accelerator, whose products want more rows."""


@dataclass(frozen=True)
class TokenScores:
    """What was asked about each token.

    Attributes:
        log_probs: log pi(label), nats, with gradient.
        extras: by name, one number per token, without gradient.
    """

    log_probs: Float[Tensor, "m"]
    extras: dict[str, Float[Tensor, "m"]] = field(default_factory=dict)


def _entropy(logits: Tensor, norm: Tensor) -> Tensor:
    return norm - ((logits - norm[:, None]).exp() * logits).sum(dim=1)


def _log_sum_squares(logits: Tensor, norm: Tensor) -> Tensor:
    return (2 * logits).logsumexp(dim=1) - 2 * norm


def _largest(logits: Tensor, norm: Tensor) -> Tensor:
    return logits.amax(dim=1) - norm


EXTRAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": _entropy,
    "log_sum_squares": _log_sum_squares,
    "largest": _largest,
}
"""Functions of logits [m, v] and their logsumexp [m]: entropy, log sum_v pi^2 (WPO), log-probability of the mode."""


def score_tokens(
    hidden: Float[Tensor, "m d"],
    head: Head,
    labels: Int[Tensor, "m"],
    *,
    extras: Sequence[str] = (),
    memory: int | None = None,
) -> TokenScores:
    """Log-probability of one token after each hidden state, and what else is wanted of its distribution.

    Args:
        hidden: the state that *predicts* each token, scored tokens only: see `Layout.predictors`.
        head: `LinearHead` or `ModuleHead`.
        labels: the tokens themselves, ids of the head's vocabulary.
        extras: names in `EXTRAS`.
        memory: bytes that logits may take; None = `CPU_BUDGET` or `ACCELERATOR_BUDGET`. About twice as many are in use
            at the peak of the backward pass of a trained head.

    Raises:
        ValueError: unknown extra.
    """
    functions = {name: choose("extra", name, EXTRAS) for name in extras}
    log_probs, *values = _at(hidden, head, labels[:, None], tuple(functions.values()), memory)
    return TokenScores(log_probs[:, 0], dict(zip(functions, values)))


def log_probs_at(
    hidden: Float[Tensor, "m d"], head: Head, ids: Int[Tensor, "m k"], *, memory: int | None = None
) -> Float[Tensor, "m k"]:
    """Log-probabilities of k vocabulary entries at each token, with gradient: the student of ADPA and DCKD.

    Args:
        hidden: the state that predicts each token.
        head: of the student.
        ids: entries of its vocabulary; they may repeat.
        memory: bytes that logits may take.
    """
    return _at(hidden, head, ids, (), memory)[0]


def map_logits(
    function: Callable[..., Any],  # Any: tensors in a structure that the caller chooses
    hidden: Float[Tensor, "m d"],
    head: Head,
    *per_token: Tensor,
    memory: int | None = None,
) -> list[Any]:
    """Any function of whole distributions, chunk by chunk: `function(logits [c, v], *slices of per_token)`.

    Logits are float32 or better. Where a gradient is wanted and the budget is too small for all chunks at once, the
    logits of a chunk are computed again in the backward pass.

    Returns:
        The results of the chunks, in order.
    """
    budget = budget_of(hidden, memory)

    def run(states: Tensor, *slices: Tensor) -> Any:
        return function(head.logits(states), *slices)

    # Three float32 copies: logits, their softmax and its gradient.
    row_bytes = 12 * _vocabulary(head, hidden)
    again = torch.is_grad_enabled() and len(hidden) * row_bytes > budget
    results = []
    for rows in _chunks(len(hidden), budget // row_bytes):
        inputs = (hidden[rows], *[values[rows] for values in per_token])
        results.append(checkpoint(run, *inputs, use_reentrant=False) if again else run(*inputs))
    return results


def budget_of(hidden: Tensor, memory: int | None) -> int:
    """The memory budget in bytes: the caller's, or that of the device."""
    if memory is None:
        return CPU_BUDGET if hidden.device.type == "cpu" else ACCELERATOR_BUDGET
    if memory <= 0:
        raise ValueError(f"`memory` is a number of bytes above 0, found {memory}.")
    return memory


def _at(
    hidden: Tensor, head: Head, ids: Tensor, extras: tuple[Callable[[Tensor, Tensor], Tensor], ...], memory: int | None
) -> tuple[Tensor, ...]:
    if len(hidden) != len(ids):
        raise ValueError(f"expected one row of ids per hidden state, found {len(ids)} and {len(hidden)}.")
    if isinstance(head, LinearHead):
        return _LogProbs.apply(hidden, head.weight, head.bias, ids, head, extras, budget_of(hidden, memory))

    def gathered(logits: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
        norm = logits.detach().logsumexp(dim=1)
        return log_probs_of(logits, chosen), *[extra(logits.detach(), norm) for extra in extras]

    columns = zip(*map_logits(gathered, hidden, head, ids, memory=memory))
    return tuple(torch.cat(parts) for parts in columns)


class _LogProbs(torch.autograd.Function):
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
            for rows in _chunks(len(hidden), budget // row_bytes):
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
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
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
    for rows in _chunks(len(ids), max(1, ctx.rows // ids.shape[1])):
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
    for number, rows in enumerate(_chunks(len(hidden), ctx.rows)):
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


def _vocabulary(head: Head, hidden: Tensor) -> int:
    if isinstance(head, LinearHead):
        return len(head.weight)
    size = getattr(head.module, "out_features", None)
    if isinstance(size, int):
        return size
    with torch.no_grad():
        return head.logits(hidden[:1]).shape[-1]


def _chunks(count: int, rows: int) -> Iterator[slice]:
    """At least one chunk, even of nothing, so that empty inputs keep their shapes."""
    rows = max(1, rows)
    yield from (slice(start, min(start + rows, count)) for start in range(0, max(count, 1), rows))
