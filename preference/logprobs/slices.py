"""Logits of some tokens, one slice of the vocabulary after the other: what `function.py` computes with.

Logits stand as [c, n], entries by tokens: that way the products W h^T, and those with W and with h that follow, run at
full speed on a CPU, and a slice of a few MiB is still in its cache when its exponentials are made. The softmax over
slices is the running one: a slice's exponentials are relative to the highest logit so far, and sums so far are scaled
when a higher one comes (Milakov and Gimelshein, arXiv:1805.02867).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from preference.logprobs.extras import Extra
from preference.logprobs.head import LinearHead, finish_
from preference.logprobs.lending import lend

ENTRIES = {"cpu": 2**12}
"""Entries of a slice, by device: on a CPU the logits of 500 tokens are 8 MiB and stay in its cache."""

ACCELERATOR_ENTRIES = 2**15
"""Entries of a slice on an accelerator, which wants fewer and larger products."""

ALIGNED = 32
"""Tokens are filled up to a multiple of it. On a CPU rows that begin anywhere cost a quarter of the product's speed,
and the last tokens of an odd number would be rounded in another way than the same tokens among others.
"""


class Product:
    """The product of a head with some tokens, slice by slice, in buffers that every slice uses again.

    Attributes:
        head: with its scale and soft cap.
        states: hidden states, narrow.
        narrow: dtype of the products.
        precise: dtype of logits and sums, float32 or better.
        slices: of the vocabulary.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "n d"],
        weight: Float[Tensor, "v d"],
        bias: Float[Tensor, "v"] | None,
        head: LinearHead,
        narrow: torch.dtype,
    ) -> None:
        self.head, self.narrow, self._weight, self._bias = head, narrow, weight, bias
        self.precise = torch.promote_types(self.narrow, torch.float32)
        self.states = hidden.to(self.narrow)
        self.slices = list(pieces(len(weight), entries(hidden.device.type, len(weight))))
        self._buffers: dict[str, Tensor] = {}

    def matrix(self, part: slice) -> Float[Tensor, "c d"]:
        """W of a slice, narrow."""
        return self._weight[part].to(self.narrow)

    def table(self) -> Float[Tensor, "v n"]:
        """Room for numbers of all entries."""
        return lend(len(self._weight), len(self.states), self.precise, self.states.device)

    def room(self, name: str, part: slice) -> Float[Tensor, "c n"]:
        """A buffer for numbers of a slice."""
        if name not in self._buffers:
            shape = (self.slices[0].stop, len(self.states))
            self._buffers[name] = torch.empty(shape, dtype=self.precise, device=self.states.device)
        return self._buffers[name][: part.stop - part.start]

    def logits(self, part: slice, out: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
        """Logits of a slice, in a given place."""
        if self.narrow == self.precise:
            torch.mm(self.matrix(part), self.states.T, out=out)
        else:
            out.copy_(torch.mm(self.matrix(part), self.states.T))
        if self._bias is not None:
            out.add_(self._bias[part, None].to(self.narrow))
        return finish_(out, self.head.scale, self.head.softcap)

    def sloped(self, weights: Float[Tensor, "c n"], logits: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
        """Weights times the slope of scale and soft cap, in place."""
        if self.head.softcap is None:
            return weights if self.head.scale == 1.0 else weights.mul_(self.head.scale)
        return weights.mul_(slope_of(logits, self.head))

    def with_states(self, weights: Float[Tensor, "c n"]) -> Float[Tensor, "c d"]:
        """weights @ h, in the dtype of the products."""
        return torch.mm(weights.to(self.narrow), self.states)

    def add_states(self, total: Float[Tensor, "c d"], weights: Float[Tensor, "c n"]) -> None:
        """total += weights @ h."""
        self._add(total, weights, self.states)

    def add_matrix(self, total: Float[Tensor, "n d"], weights: Float[Tensor, "c n"], part: slice) -> None:
        """total += weights^T @ W of a slice."""
        self._add(total, weights.T, self.matrix(part))

    def _add(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        if self.narrow == self.precise:
            total.addmm_(left, right)
        else:
            total.add_(torch.mm(left.to(self.narrow), right))


@dataclass
class Running:
    """What is known of the distributions of n tokens after some slices.

    Attributes:
        highest: largest logit.
        total: sum of the exponentials relative to it.
        picked: logits of the wanted entries, k a token.
        moments: sum of each extra's parts.
        pulls: sum over entries of exponential times slope times W, or None.
    """

    highest: Float[Tensor, "n"]
    total: Float[Tensor, "n"]
    picked: Float[Tensor, "k n"]
    moments: list[Tensor]
    pulls: Float[Tensor, "n d"] | None

    @classmethod
    def start(cls, work: Product, ids: Int[Tensor, "n k"], extras: int, pulled: bool) -> Running:
        """Before the first slice."""
        count, options = len(ids), {"dtype": work.precise, "device": work.states.device}
        return cls(
            # The lowest number, not -inf: a slice of which every entry is ruled out is no difference of infinities.
            highest=torch.full((count,), torch.finfo(work.precise).min, **options),
            total=torch.zeros(count, **options),
            picked=torch.zeros(ids.shape[::-1], **options),
            moments=[torch.zeros(count, **options) for _ in range(extras)],
            pulls=torch.zeros(work.states.shape, **options) if pulled else None,
        )

    def see(
        self, work: Product, part: slice, ids: Tensor, extras: tuple[Extra, ...], out: Float[Tensor, "c n"] | None
    ) -> None:
        """Takes in a slice. Into `out` go its exponentials times their slope, relative to `highest` as it is then."""
        apart = bool(extras) or work.head.softcap is not None  # logits are read after their exponentials are there
        place = work.room("exponentials" if apart else "logits", part) if out is None else out
        logits = work.logits(part, work.room("logits", part) if apart else place)
        local, within = local_ids(ids, part)
        self.picked = torch.where(within, logits.gather(0, local), self.picked)
        scale = self._raise(logits.amax(dim=0))
        weights = torch.sub(logits, self.highest, out=place).exp_()
        self.total.mul_(scale).add_(weights.sum(dim=0))
        for moment, extra in zip(self.moments, extras, strict=True):
            if extra.part is not None:
                moment.mul_(scale**extra.power).add_(extra.part(logits, weights).sum(dim=0))
        if out is not None or self.pulls is not None:
            weights = work.sloped(weights, logits)
        if self.pulls is not None:
            work.add_matrix(self.pulls.mul_(scale[:, None]), weights, part)

    def _raise(self, highest: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Takes in a higher logit: what sums so far are multiplied by."""
        before, self.highest = self.highest, torch.maximum(self.highest, highest)
        return (before - self.highest).exp_()


def local_ids(ids: Int[Tensor, "n k"], part: slice) -> tuple[Int[Tensor, "k n"], Tensor]:
    """Places of wanted entries in a slice, and which of them stand there at all; the others point to some place."""
    local = ids.T - part.start
    size = part.stop - part.start
    return local.clamp(0, size - 1), (local >= 0) & (local < size)


def aligned(count: int) -> int:
    """The largest multiple of `ALIGNED` that is not above."""
    return count - count % ALIGNED


def filled(values: Real[Tensor, "m *rest"]) -> Real[Tensor, "n *rest"]:
    """Zeros behind the last token, up to a multiple of `ALIGNED`."""
    missing = -len(values) % ALIGNED
    return values if missing == 0 else torch.cat([values, values.new_zeros(missing, *values.shape[1:])])


def slope_of(logits: Tensor, head: LinearHead) -> Tensor:
    """Derivative of the logits by W h: scale, times 1 - (z / c)^2 under a soft cap."""
    if head.softcap is None:
        return torch.full_like(logits, head.scale)
    return head.scale * (1 - (logits / head.softcap).square())


def entries(device: str, vocabulary: int) -> int:
    """Entries of the vocabulary in a slice: slices of about the same size.

    Of nothing but the vocabulary: sums over slices are rounded in the same way whatever other tokens there are.
    """
    slices = -(-vocabulary // ENTRIES.get(device, ACCELERATOR_ENTRIES))
    return -(-vocabulary // slices)


def pieces(count: int, size: int) -> Iterator[slice]:
    """At least one, even of nothing, so that empty inputs keep their shapes."""
    size = max(1, size)
    yield from (slice(start, min(start + size, count)) for start in range(0, max(count, 1), size))
