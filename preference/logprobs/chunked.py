"""Log-probabilities from hidden states, without ever holding the logits [m, v] of all tokens.

Tokens go through the head in chunks that fit a memory budget; log-softmax is float32 or better whatever the network
runs in. A `LinearHead` takes the autograd function of `function.py`, which keeps the logits of what fits the budget and
computes the others again in the backward pass. A `ModuleHead` is called per chunk: under plain autograd if everything
fits, else under activation checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from align.objectives.units import choose
from preference.logprobs.extras import EXTRAS, Extra, extra_of
from preference.logprobs.function import ChunkedLogProbs
from preference.logprobs.head import Head, LinearHead
from preference.logprobs.slices import pieces
from preference.logprobs.tokens import log_probs_of

CPU_BUDGET = 128 * 2**20
"""Bytes for logits on a CPU: those of almost 700 tokens of a vocabulary of 50,000."""

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
        memory: bytes that logits may take; None = `CPU_BUDGET` or `ACCELERATOR_BUDGET`. With a trained head and more
            tokens than fit, slices of the others take up to as many more.

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
    for rows in pieces(len(hidden), budget // row_bytes):
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


def _at(hidden: Tensor, head: Head, ids: Tensor, extras: tuple[Extra, ...], memory: int | None) -> tuple[Tensor, ...]:
    if len(hidden) != len(ids):
        raise ValueError(f"expected one row of ids per hidden state, found {len(ids)} and {len(hidden)}.")
    if isinstance(head, LinearHead):
        return ChunkedLogProbs.apply(hidden, head.weight, head.bias, ids, head, extras, budget_of(hidden, memory))

    def gathered(logits: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
        return log_probs_of(logits, chosen), *[extra_of(extra, logits.detach()) for extra in extras]

    columns = zip(*map_logits(gathered, hidden, head, ids, memory=memory))
    return tuple(torch.cat(parts) for parts in columns)


def _vocabulary(head: Head, hidden: Tensor) -> int:
    if isinstance(head, LinearHead):
        return len(head.weight)
    size = getattr(head.module, "out_features", None)
    if isinstance(size, int):
        return size
    with torch.no_grad():
        return head.logits(hidden[:1]).shape[-1]
