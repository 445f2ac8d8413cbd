"""From the teachers' hidden states to what records keep of each token. Pure: tensors in, tensors out, in chunks.

    log_probs   the k likeliest ids of pi_dpo, their log-probabilities, the log of the mass of all others
    ratios      the same ids, or those of both teachers, and log pi_dpo - log pi_ref at them

Logits are cut to the ids that all models know before the softmax: rows that pad an embedding are no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from preference.adpa import adpa_advantages
from preference.logprobs import Head, map_logits
from preference.teacher import TopK, at_ids, top_k


@dataclass(frozen=True, kw_only=True)
class States:
    """A teacher at the tokens of some answers.

    Attributes:
        hidden: states that predict the tokens.
        head: of the teacher.
        vocabulary: ids from here on are cut off.
    """

    hidden: Float[Tensor, "m d"]
    head: Head
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was read of some tokens.

    Attributes:
        tensors: by their names in records.
        sums: over tokens, for the summary: their number `tokens`; `kept`, mass of pi_dpo on the entries; of ratios A
            also `gain`, the sum over entries of pi_dpo A (KL(pi_dpo || pi_ref) if all entries are kept), and the
            numbers of entries: all (`entries`), those with A below 0 (`negative`) and above 1 (`above_one`).
    """

    tensors: dict[str, Tensor]
    sums: dict[str, float]


@torch.no_grad()
def likeliest(states: States, k: int, *, memory: int | None = None) -> TopK:
    """The k likeliest ids after each state."""

    def read(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _parts(top_k(logits[:, : states.vocabulary], k))

    return _joined(map_logits(read, states.hidden, states.head, memory=memory))


@torch.no_grad()
def at_given(states: States, ids: Int[Tensor, "m k"], *, memory: int | None = None) -> TopK:
    """The same at given ids."""

    def read(logits: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _parts(at_ids(logits[:, : states.vocabulary], at))

    return _joined(map_logits(read, states.hidden, states.head, ids, memory=memory))


def log_prob_record(aligned: TopK) -> Read:
    """What DCKD reads: the aligned teacher's distribution in k entries and a rest."""
    tensors = {"ids": aligned.ids, "log_probs": aligned.log_probs, "log_rest": aligned.log_rest}
    return Read(tensors=tensors, sums=_mass(aligned, torch.ones_like(aligned.ids, dtype=torch.bool)))


def ratio_record(aligned: TopK, reference: TopK, counted: Bool[Tensor, "m k"] | None = None) -> Read:
    """What ADPA reads: A = log pi_dpo - log pi_ref at each entry, `adpa_advantages` with a beta of 1.

    Args:
        aligned: pi_dpo.
        reference: pi_ref at the same ids.
        counted: false where an id stands a second time in a token's entries: its A becomes 0, so that sums count it
            once; None = no id does.
    """
    counted = torch.ones_like(aligned.ids, dtype=torch.bool) if counted is None else counted
    ratios = torch.where(counted, adpa_advantages(aligned.log_probs, reference.log_probs), 0.0)
    sums = {
        **_mass(aligned, counted),
        "gain": float((aligned.log_probs.exp() * ratios).double().sum()),
        "entries": float(counted.sum()),
        "negative": float((ratios < 0).sum()),
        "above_one": float((ratios > 1).sum()),
    }
    return Read(tensors={"ids": aligned.ids, "ratios": ratios}, sums=sums)


def _mass(record: TopK, counted: Bool[Tensor, "m k"]) -> dict[str, float]:
    kept = torch.where(counted, record.log_probs.exp(), 0.0)
    return {"tokens": float(len(record.log_rest)), "kept": float(kept.double().sum())}


def _parts(record: TopK) -> tuple[Tensor, Tensor, Tensor]:
    return record.ids, record.log_probs, record.log_rest


def _joined(chunks: list[tuple[Tensor, Tensor, Tensor]]) -> TopK:
    ids, log_probs, log_rest = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return TopK(ids=ids, log_probs=log_probs, log_rest=log_rest)
