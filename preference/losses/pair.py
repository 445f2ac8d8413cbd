"""What a loss of the DPO family reads, and the table in which each loss says which options it understands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Real
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Scores of a batch of pairs, float32 or better.

        a = log pi(y_w | x) - log pi_ref(y_w | x),    b = the same of y_l,    h = f(a) - f(b)

    f is the identity unless another divergence than the reverse KL is asked for.

    Attributes:
        chosen: a, nats.
        rejected: b, nats.
        difference: h.
        policy_margin: log pi(y_w) - log pi(y_l), nats.
        ref_margin: the same of the reference (times its weight), nats.
        beta: > 0, weight of the implicit KL penalty.
        label_smoothing: eps, assumed share of flipped labels.
        chosen_lengths: scored tokens of y_w; None = not given.
        rejected_lengths: scored tokens of y_l; None = not given.
        baseline: delta of `bco_pair`, in the unit of rewards.
        temperature: tau of `discopop`.
    """

    chosen: Float[Tensor, "n"]
    rejected: Float[Tensor, "n"]
    difference: Float[Tensor, "n"]
    policy_margin: Float[Tensor, "n"]
    ref_margin: Float[Tensor, "n"]
    beta: float
    label_smoothing: float = 0.0
    chosen_lengths: Real[Tensor, "n"] | None = None
    rejected_lengths: Real[Tensor, "n"] | None = None
    baseline: float | Float[Tensor, ""] = 0.0
    temperature: float = 0.05

    @property
    def logit(self) -> Float[Tensor, "n"]:
        """x = beta h: log-odds that y_w is preferred."""
        return self.beta * self.difference

    @property
    def average_difference(self) -> Float[Tensor, "n"]:
        """a / n_w - b / n_l, nats a token; h itself if no lengths are given."""
        if self.chosen_lengths is None or self.rejected_lengths is None:
            return self.difference
        return self.chosen / self.chosen_lengths - self.rejected / self.rejected_lengths


PairLoss = Callable[[Pair], Tensor]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A loss of the family and what it understands.

    Attributes:
        function: `Pair` -> one loss per pair.
        smoothing: whether label smoothing has a meaning.
        divergence: whether the loss reads h alone, so that a divergence may replace the log-ratios.
        lengths: `ignored`, `optional` or `required`.
        per_pair: whether the loss of a pair depends on that pair only.
    """

    function: PairLoss
    smoothing: bool = False
    divergence: bool = False
    lengths: str = "ignored"
    per_pair: bool = True


LOSSES: dict[str, Entry] = {}
"""Every loss of the family by its name."""


def pair_loss(
    *, smoothing: bool = False, divergence: bool = False, lengths: str = "ignored", per_pair: bool = True
) -> Callable[[PairLoss], PairLoss]:
    """Enters a loss under its function's name."""

    def enter(function: PairLoss) -> PairLoss:
        LOSSES[function.__name__] = Entry(
            function=function, smoothing=smoothing, divergence=divergence, lengths=lengths, per_pair=per_pair
        )
        return function

    return enter


def smoothed(logit: Float[Tensor, "n"], label_smoothing: float) -> Float[Tensor, "n"]:
    """-(1 - eps) log sigma(x) - eps log sigma(-x): cross-entropy with labels that are wrong with probability eps."""
    loss = -torch.nn.functional.logsigmoid(logit)
    return loss + label_smoothing * logit  # -log sigma(-x) = -log sigma(x) + x
