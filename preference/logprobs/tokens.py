"""Log-probabilities of tokens and of sequences from logits. Length normalisation happens in this file and nowhere else.

Numbers are float32 or better whatever the network ran in: the difference of two answers is a few nats, their sums are
hundreds, and bfloat16 has eight bits.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from align.objectives.units import precise


def token_log_probs(
    logits: Float[Tensor, "b t v"], labels: Int[Tensor, "b t"], mask: Real[Tensor, "b t"] | Bool[Tensor, "b t"]
) -> Float[Tensor, "b s"]:
    """Log-probability of each token given those before it, in nats; s = t - 1.

        lp[b, i] = log softmax(logits[b, i])[labels[b, i + 1]]      where mask[b, i + 1] is not 0, else 0

    Labels are *not* shifted: `labels[b, i]` is the token at place i, as in `input_ids`, and `mask` marks the places
    whose tokens are scored (the response with its end token). The token at place 0 has no predecessor and is never
    scored, so a prompt needs at least one token, usually the beginning-of-sequence token.

    Args:
        logits: of the network, any float dtype.
        labels: token ids; what stands where the mask is 0 (-100, padding) does not matter.
        mask: not 0 at scored tokens.

    Returns:
        Column i belongs to the token at place i + 1. Masked places are exactly 0, and their logits get no gradient,
        even if they are not finite.
    """
    scored = mask[:, 1:] != 0
    # Gathered first: a log-softmax of every place would hold the largest tensor of the step twice more.
    picked = logits[:, :-1][scored]
    values = log_probs_of(picked, labels[:, 1:][scored][:, None])[:, 0]
    return torch.zeros(scored.shape, dtype=values.dtype, device=values.device).masked_scatter(scored, values)


def sequence_log_probs(
    logits: Float[Tensor, "b t v"],
    labels: Int[Tensor, "b t"],
    mask: Real[Tensor, "b t"] | Bool[Tensor, "b t"],
    average: bool = False,
) -> Float[Tensor, "b"]:
    """Log-probability of each response, in nats; with `average`, in nats a token.

        l(y) = sum_t log pi(y_t | x, y_<t);      average: l(y) / |y|      what SimPO compares

    Args:
        logits: of the network.
        labels: token ids, *not* shifted, as in `token_log_probs`.
        mask: not 0 at scored tokens.
        average: divide by the number of scored tokens.

    Raises:
        ValueError: a row without a scored token.
    """
    return pool_tokens(token_log_probs(logits, labels, mask), mask[:, 1:], average)


def pool_tokens(
    log_probs: Float[Tensor, "n t"], mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"], average: bool = False
) -> Float[Tensor, "n"]:
    """Sum, or average, of the scored tokens of each row. Places correspond: nothing is shifted here.

    Raises:
        ValueError: a row without a scored token, whose average does not exist.
    """
    scored = mask != 0
    lengths = scored.sum(dim=1)
    _check_lengths(lengths)
    sums = torch.where(scored, precise(log_probs), 0.0).sum(dim=1)
    return sums / lengths if average else sums


def pool_flat(
    log_probs: Float[Tensor, "m"], sequence_ids: Int[Tensor, "m"], sequences: int, average: bool = False
) -> Float[Tensor, "n"]:
    """The same for tokens in one line, each with the number of its sequence, as `preference.layout` gives them.

    Args:
        log_probs: one per scored token.
        sequence_ids: 0 .. sequences - 1, in any order.
        sequences: n.
        average: divide by the number of scored tokens.

    Raises:
        ValueError: a sequence without a scored token.
    """
    lengths = torch.bincount(sequence_ids, minlength=sequences)
    _check_lengths(lengths)
    values = precise(log_probs)
    sums = torch.zeros(sequences, dtype=values.dtype, device=values.device).index_add(0, sequence_ids, values)
    return sums / lengths if average else sums


def log_probs_of(logits: Float[Tensor, "*m v"], ids: Int[Tensor, "*m k"]) -> Float[Tensor, "*m k"]:
    """Log-probabilities of chosen vocabulary entries: logit - logsumexp(logits), in nats."""
    logits = precise(logits)
    return logits.gather(-1, ids) - logits.logsumexp(dim=-1, keepdim=True)


def _check_lengths(lengths: Int[Tensor, "n"]) -> None:
    if bool((lengths == 0).any()):
        empty = (lengths == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"sequences {empty[:5]} have no scored token: nothing of them can be compared. Drop them before the loss; "
            "an empty answer, or a prompt that fills the length limit, is the usual cause."
        )
