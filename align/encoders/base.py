"""What the suite asks of an encoder of texts, and the two ways to make one vector of a text's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class TextEncoder(Protocol):
    """Frozen: the vector of a text is a function of the text alone.

    Attributes:
        name: for people.
    """

    name: str

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """One vector per text, float32, on the CPU. Each text is encoded alone: a row never depends on the others."""
        ...

    def fingerprint(self) -> str:
        """Equal for encoders that give equal vectors; where their files lie does not matter."""
        ...


def masked_mean(states: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"] | Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
    """Mean over the tokens of each text, padding left out.

        h_i = sum_t m_it s_it / sum_t m_it

    Args:
        states: hidden states of the tokens.
        mask: 1 for tokens, 0 for padding; every text has one token at least.
    """
    kept = mask.to(torch.float32).unsqueeze(-1)
    return (states.float() * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)


def weights_digest(named: Iterable[tuple[str, Tensor]], *more: str) -> str:
    """Hash of weights and of whatever else decides the result."""
    digest = hashlib.blake2b("\n".join(more).encode(), digest_size=16)
    for name, weight in sorted(named, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
