"""metrics.jsonl: one JSON object per step, always written, strict JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path


def json_number(value: float) -> float | int | None:
    """A number that JSON can hold; NaN and infinity become null. Floats keep every bit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsFile:
    """Appends lines to a metrics file, one write per line.

    Args:
        path: the file; lines are added to what is there.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line; it is with the operating system when this returns."""
        line = {"step": step, **{name: json_number(value) for name, value in metrics.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def flush_to_disk(self) -> None:
        """Make sure that the lines survive a power cut; called before a checkpoint that relies on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
