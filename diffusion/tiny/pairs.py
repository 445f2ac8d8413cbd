"""Pairs of painted pictures: one that shows its caption, one that shows another. `builtin:tiny/pairs` as a data path.

A stand-in for a set of human preferences: the pictures are painted when they are asked for, so there is no file. As
everywhere, a row's content depends on its number alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.tiny import prompts_path

ROUNDS = 4
"""How often each training caption is painted anew."""
STRIDE = 7
"""The caption that the other picture shows is so many places further on for each round."""


@dataclass(frozen=True, kw_only=True)
class PaintedPairs:
    """Rows `prompt`, `chosen`, `rejected`; an implementation of `diffusion.stored_tables.Table`.

    Attributes:
        captions: of the embedded model's training set.
    """

    captions: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The captions' file."""
        return prompts_path("train")

    @property
    def stored(self) -> bool:
        """Pictures are in the rows."""
        return True

    @property
    def columns(self) -> Sequence[str]:
        """Names."""
        return ("prompt", "chosen", "rejected")

    def __len__(self) -> int:
        return ROUNDS * len(self.captions)

    def place(self, row: int) -> str:
        """Caption and round."""
        return f"builtin:tiny/pairs, row {row}"

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All rows (Any: texts and bytes)."""
        return (self.row(number, columns) for number in range(len(self)))

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """One row (Any: texts and bytes)."""
        return {name: self._cell(row, name) for name in columns if name in self.columns}

    def _cell(self, row: int, name: str) -> str | bytes:
        repeat, number = divmod(row, len(self.captions))
        if name == "prompt":
            return self.captions[number]
        other = (number + STRIDE * (repeat + 1)) % len(self.captions)
        return painted(self.captions[number if name == "chosen" else other], (row, int(name == "chosen")))


def painted_pairs() -> PaintedPairs:
    """All pairs."""
    from diffusion.prompts import read_prompts

    return PaintedPairs(captions=read_prompts("builtin:tiny/train").prompts)


def painted(caption: str, seed: tuple[int, ...]) -> bytes:
    """A PNG file of a picture that shows a caption; the seed decides about places and sizes."""
    import numpy as np

    from diffusion.tiny.world import parse, render

    file = io.BytesIO()
    render(parse(caption), np.random.default_rng(seed)).save(file, "PNG")
    return file.getvalue()
