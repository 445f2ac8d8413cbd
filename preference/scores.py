"""Log-probabilities of the tokens of many answers, and what a loss reads of them: sums, averages, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from jaxtyping import Bool, Float, Int
from torch import Tensor

from preference.layout import Layout
from preference.logprobs import pool_flat


class Sides(NamedTuple):
    """One row per pair, of the chosen and of the rejected answers."""

    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True, kw_only=True)
class SequenceScores:
    """Scored tokens in one line, answer after answer; answers are in the order in which they were given.

    Attributes:
        log_probs: log pi of each token, nats, float32 or better.
        layout: where they stand; says to which answer each belongs.
        extras: other numbers of the same tokens, by their names in `preference.logprobs.EXTRAS`.
    """

    log_probs: Float[Tensor, "m"]
    layout: Layout
    extras: Mapping[str, Float[Tensor, "m"]] = field(default_factory=dict)

    @property
    def lengths(self) -> Int[Tensor, "n"]:
        """Tokens of each answer."""
        return self.layout.lengths

    def sums(self) -> Float[Tensor, "n"]:
        """log pi(y | x) of each answer, nats."""
        return pool_flat(self.log_probs, self.layout.sequence_ids, self.layout.sequences)

    def averages(self) -> Float[Tensor, "n"]:
        """The same over the number of its tokens, nats a token."""
        return pool_flat(self.log_probs, self.layout.sequence_ids, self.layout.sequences, average=True)

    def table(self, values: Float[Tensor, "m"] | None = None) -> Float[Tensor, "n t"]:
        """The log-probabilities, or other values of the tokens, one row per answer; 0 where there is no token."""
        return self.layout.per_response(self.log_probs if values is None else values)

    def mask(self) -> Bool[Tensor, "n t"]:
        """Which places of `table` hold a token."""
        return self.layout.response_mask()

    def like(self, log_probs: Float[Tensor, "m"]) -> Self:
        """Other log-probabilities of the same tokens: those of the reference."""
        return replace(self, log_probs=log_probs.to(self.log_probs.device), extras={})


def sides(values: Tensor) -> Sides:
    """Chosen and rejected answers apart, of values that alternate between them."""
    return Sides(values[0::2], values[1::2])
