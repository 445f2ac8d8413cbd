"""The report of a reward model (accuracy, agreement, calibration, errors by level) as Markdown and JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preference.reward_models.evaluate import Found

NAME = "reward_report"
"""Of the two files, `.json` and `.md`."""


def write_reward_report(folder: Path, found: Found, step: int, weights: str) -> Path:
    """Write both files, each in one go; the last evaluation replaces the one before.

    Args:
        folder: the run folder.
        found: of an evaluation.
        step: finished training steps.
        weights: "ema" or "raw".

    Returns:
        The Markdown file.
    """
    numbers = {name: value if math.isfinite(value) else None for name, value in found.figures.items()}
    data = {"step": step, "weights": weights, "rows": len(found.rows), "figures": numbers, "tables": found.tables}
    _write(folder / f"{NAME}.json", json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return _write(folder / f"{NAME}.md", markdown(found, step))


def markdown(found: Found, step: int) -> str:
    """The report as a page."""
    lines = [f"# Reward model after {step} steps", "", f"{len(found.rows):,} held-out rows.", ""]
    lines += ["| number | value |", "|---|---|"]
    lines += [f"| {name} | {_shown(value)} |" for name, value in found.figures.items()]
    lines += [*_reliability(found.tables), *_levels(found.tables)]
    return "\n".join(lines) + "\n"


def _reliability(tables: Mapping[str, Any]) -> Iterator[str]:
    if "reliability" not in tables:
        return
    yield from ("", "## Calibration of pairs", "")
    yield "Confidence is sigma(|margin|); a calibrated model is right as often as it is confident."
    yield from ("", "| confidence | pairs | mean confidence | accuracy |", "|---|---|---|---|")
    for row in tables["reliability"]:
        bounds = f"{row['low']:.2f} to {row['high']:.2f}"
        yield f"| {bounds} | {row['count']} | {_shown(row['confidence'])} | {_shown(row['accuracy'])} |"


def _levels(tables: Mapping[str, Any]) -> Iterator[str]:
    for name, rows in tables.get("levels", {}).items():
        yield from ("", f"## {name}", "", "| label | answers | mean prediction |", "|---|---|---|")
        yield from (f"| {row['label']:g} | {row['count']} | {_shown(row['predicted'])} |" for row in rows)


def _shown(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _finite(value: Any) -> Any:
    """Plain data with null for what is no number."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path
