"""A direction as a vector that is added to the embedding of the time, as SDXL is told the size of a picture.

    e(v) = W2 SiLU(W1 [v, fourier(v), null] + b1) + b2,    W2 = 0, b2 = 0 before training
    fourier(v) = sin(2^j pi v_k), cos(2^j pi v_k)          j = 0 .. frequencies - 1

Without a direction v and fourier(v) are zeros and null is 1. Before training e is exactly 0: the network is the base.

References:
    The place is that of SDXL's micro-conditioning: Podell et al., arXiv:2307.01952, section 2.2. That a preference goes
    there, and these two layers, are ours; Directional Preference Alignment (Wang et al., arXiv:2402.18571) writes it
    into the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.engine.random import generator


def fourier(directions: Float[Tensor, "n k"], frequencies: int) -> Float[Tensor, "n f"]:
    """Sines and cosines of 2^j pi v, j = 0 .. frequencies - 1; f = 2 k frequencies."""
    scales = math.pi * 2.0 ** torch.arange(frequencies, dtype=directions.dtype, device=directions.device)
    angles = (directions.unsqueeze(2) * scales).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def told(directions: Float[Tensor, "n k"], frequencies: int) -> Float[Tensor, "n f"]:
    """[v, fourier(v), 0] of a direction, [0, 0, 1] of a row of zeros, which is no direction."""
    null = (directions == 0).all(dim=1, keepdim=True)
    known = torch.cat([directions, fourier(directions, frequencies)], dim=1)
    return torch.cat([known.masked_fill(null, 0.0), null.to(known.dtype)], dim=1)


class DirectionEmbedding(nn.Module):
    """e(v), and which directions the rows of the pass under way ask for.

    Args:
        objectives: components of a direction.
        width: of the time's embedding.
        hidden: of the layer between.
        frequencies: see `fourier`.
        seed: of W1.
    """

    def __init__(self, objectives: int, width: int, *, hidden: int, frequencies: int, seed: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.first = nn.Linear(objectives * (1 + 2 * frequencies) + 1, hidden)
        self.second = nn.Linear(hidden, width)
        self._asked: Tensor | None = None
        self._on = True
        with torch.no_grad():
            inputs = self.first.in_features
            source = generator(seed, "direction_embedding")
            self.first.weight.copy_(torch.randn(self.first.weight.shape, generator=source) / math.sqrt(inputs))
            self.first.bias.zero_()
            self.second.weight.zero_()
            self.second.bias.zero_()

    @property
    def objectives(self) -> int:
        """Components of a direction."""
        return (self.first.in_features - 1) // (1 + 2 * self.frequencies)

    def forward(self, directions: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """e(v) of each row; zeros are no direction."""
        return self.second(nn.functional.silu(self.first(told(directions.float(), self.frequencies))))

    @contextmanager
    def asked(self, directions: Float[Tensor, "n k"]) -> Iterator[None]:
        """Inside, the rows of a pass ask for these directions; a pass of several times n rows repeats them."""
        before, self._asked = self._asked, directions
        try:
            yield
        finally:
            self._asked = before

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Inside, a pass is one of the network alone."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def add_to(self, time: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """The time's embedding plus e(v) of each row; as it is where nobody asks, or it is switched off.

        Raises:
            ValueError: the rows of the pass are no multiple of those that ask.
        """
        if self._asked is None or not self._on:
            return time
        times, rest = divmod(len(time), len(self._asked))
        if rest:
            raise ValueError(f"expected a multiple of {len(self._asked)} rows in the pass, found {len(time)}.")
        return time + self(self._asked.to(time.device)).repeat(times, 1).to(time.dtype)
