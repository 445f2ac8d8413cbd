"""Stored pictures to learn from: where they are and what the columns are called. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.numbers import PositiveInt
from align.config.paths import FilePath


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """What pairs and single pictures have in common."""

    path: FilePath
    """A .jsonl or .parquet file, or a folder written by `datasets.Dataset.save_to_disk`."""
    prompt: str = "prompt"
    """Column of the prompt."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row that cannot be used: stop and say which, or leave it out and count it."""
    cache_megabytes: PositiveInt = 1024
    """Memory of one process for encoded pictures; the least recently used go."""
    cache_folder: FilePath | None = None
    """Keep encoded pictures on disk, too, for later runs; `null` does not."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig(ImageSource):
    """Pairs of pictures, one preferred.

    `builtin:tiny/pairs` as a path are painted ones, to try things out.

    A picture is a path relative to the file, or the bytes of a file. Without `chosen` and `rejected` columns, the
    columns of Pick-a-Pic are looked for: `caption`, `jpg_0`, `jpg_1` and `label_0` (1: the first is preferred, 0: the
    second, anything between: no preference, such rows are left out).
    """

    chosen: str = "chosen"
    """Column of the preferred picture."""
    rejected: str = "rejected"
    """Column of the other one."""


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageSource):
    """Pictures and their prompts. A picture is a path relative to the file, or the bytes of a file."""

    image: str = "image"
    """Column of the picture."""
