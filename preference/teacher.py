"""What a teacher says about a token in k entries: its most likely ids, their log-probabilities, the mass of the rest.

The rest is never thrown away. `tail` names what a loss does with it:

    bucket        one more entry that stands for all others:  KL over k + 1 entries, a lower bound of the full KL
    renormalise   both distributions conditioned on the support: says nothing about mass that leaks out of it
    ignore        the k entries as they are, mass below 1: ADPA's support restriction, where the rest has advantage 0

Pure part. Records are computed in float32 or better: a teacher trained with beta = 0.01 differs from its reference by
less than the rounding of bfloat16 logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.objectives.units import choose, precise
from preference.logprobs import Head, map_logits


@dataclass(frozen=True, kw_only=True)
class TopK:
    """A distribution over the vocabulary at each token, in k entries and a rest.

    Attributes:
        ids: entries of the vocabulary; different from each other unless `support_union` says which repeat.
        log_probs: log pi at these ids, nats.
        log_rest: log of the mass of all other ids, nats; -inf if there is none.
    """

    ids: Int[Tensor, "*units k"]
    log_probs: Float[Tensor, "*units k"]
    log_rest: Float[Tensor, "*units"]

    def with_rest(self) -> Float[Tensor, "*units e"]:
        """The k log-probabilities and, as the last entry, the rest: a distribution."""
        return torch.cat([self.log_probs, self.log_rest[..., None]], dim=-1)

    def renormalised(self) -> Float[Tensor, "*units k"]:
        """Log-probabilities given that the token is one of the k."""
        return self.log_probs - self.log_probs.logsumexp(dim=-1, keepdim=True)


def top_k(logits: Float[Tensor, "*units v"], k: int) -> TopK:
    """The k most likely entries, from logits (or log-probabilities) of the whole vocabulary.

    Args:
        logits: cut to the ids that both tokenizers know *before* this: padding of the vocabulary is no token.
        k: entries to keep; the whole vocabulary if it is smaller.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"`k` is the number of entries to keep and must be at least 1, found {k}.")
    return at_ids(logits, precise(logits).topk(min(k, logits.shape[-1]), dim=-1).indices)


def at_ids(logits: Float[Tensor, "*units v"], ids: Int[Tensor, "*units k"]) -> TopK:
    """The same for given ids: how a reference teacher, or the student, is read on the support of the DPO teacher.

    The rest is summed from its own entries, not 1 - sum: in float32 that would be 0 whenever the k hold all but 1e-7.
    """
    logits = precise(logits)
    norm = logits.logsumexp(dim=-1, keepdim=True)
    others = logits.scatter(-1, ids, float("-inf"))
    # A logsumexp of nothing has no slope: the maximum of -inf is taken for 0 there.
    some = torch.isfinite(others).any(dim=-1, keepdim=True)
    rest = torch.where(some, others, 0.0).logsumexp(dim=-1) - norm[..., 0]
    log_rest = torch.where(some[..., 0], rest, float("-inf"))
    return TopK(ids=ids, log_probs=logits.gather(-1, ids) - norm, log_rest=log_rest)


@torch.no_grad()
def teacher_top_k(hidden: Float[Tensor, "m d"], head: Head, k: int, *, memory: int | None = None) -> TopK:
    """Records of a teacher from its hidden states, in chunks.

    Args:
        hidden: the states that predict the tokens.
        head: of the teacher; a `LinearHead` with `float32_product` keeps what bfloat16 logits would round away.
        k: entries to keep; 50 in ADPA's code.
        memory: bytes that logits may take.
    """
    return _joined(map_logits(lambda logits: _parts(top_k(logits, k)), hidden, head, memory=memory))


def student_at(hidden: Float[Tensor, "m d"], head: Head, ids: Int[Tensor, "m k"], *, memory: int | None = None) -> TopK:
    """A student (or the reference teacher) on given ids, from hidden states in chunks, with gradient.

    The rest comes from its own entries here, too: the gradient of log(1 - sum) is noise for a student that is sure of
    itself. Where no rest is needed (ADPA's default), `log_probs_at` is cheaper.

    Args:
        hidden: the states that predict the tokens.
        head: of the model.
        ids: entries of its vocabulary, different from each other.
        memory: bytes that logits may take.
    """
    return _joined(map_logits(lambda logits, at: _parts(at_ids(logits, at)), hidden, head, ids, memory=memory))


def entries(record: TopK, tail: str) -> Float[Tensor, "*units e"]:
    """Log-probabilities that a loss compares, by the name of what it does with the rest.

    Args:
        record: of a teacher or the student.
        tail: `bucket` (k + 1 entries), `renormalise` (k entries, a distribution) or `ignore` (k entries as they are).

    Raises:
        ValueError: unknown name.
    """
    tails: dict[str, Callable[[TopK], Tensor]] = {
        "bucket": TopK.with_rest,
        "renormalise": TopK.renormalised,
        "ignore": lambda record: record.log_probs,
    }
    return choose("treatment of the tail", tail, tails)(record)


def support_union(
    first: Int[Tensor, "*units k"], second: Int[Tensor, "*units j"]
) -> tuple[Int[Tensor, "*units kj"], Bool[Tensor, "*units kj"]]:
    """Ids of two supports side by side, and which of them are new: false where an id stands further left already.

    Sums over the union count an id once: multiply what belongs to an id by the second tensor.
    """
    ids = torch.cat([first, second], dim=-1)
    same = ids[..., :, None] == ids[..., None, :]
    earlier = torch.ones(ids.shape[-1], ids.shape[-1], dtype=torch.bool, device=ids.device).tril(-1)
    return ids, ~(same & earlier).any(dim=-1)


def _parts(record: TopK) -> tuple[Tensor, Tensor, Tensor]:
    return record.ids, record.log_probs, record.log_rest


def _joined(chunks: list[tuple[Tensor, Tensor, Tensor]]) -> TopK:
    ids, log_probs, log_rest = (torch.cat(parts) for parts in zip(*chunks))
    return TopK(ids=ids, log_probs=log_probs, log_rest=log_rest)
