"""Run folder -> typed objects. Tolerant: whatever is missing or cut off is left out, and said in `Run.notes`.

A run that was killed half-way through a line of `metrics.jsonl` still has a page. The format is described in
docs/run_folder.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from align.report.records import Evaluation, EvaluationRow, Interval, Parity, Plan, Run, Sample, Section, Tile

Json = dict[str, Any]  # Any: a JSON object that somebody else wrote; every use below checks what it takes out


def read_run(folder: Path | str) -> Run:
    """Read whatever a run folder holds.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it comes from a run.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "plan.json", "evaluations")):
        raise FileNotFoundError(
            f"expected a run folder (config.yaml, metrics.jsonl, ...) at {folder}, found "
            f"{'a folder without any of these' if folder.is_dir() else 'no such folder'}. "
            "Give the folder that `align train` printed when it started."
        )
    notes: list[str] = []
    text, config = _config(folder / "config.yaml", notes)
    metrics, not_finite = _metrics(folder, notes)
    samples_step, samples = _samples(folder, notes)
    return Run(
        folder=folder,
        config=config,
        config_text=text,
        plan=_plan(folder / "plan.json", notes),
        metrics=metrics,
        evaluations=_evaluations(folder / "evaluations", notes),
        strip=_strip(folder / "strip", notes),
        samples=samples,
        samples_step=samples_step,
        not_finite=not_finite,
        notes=tuple(notes),
    )


def _config(path: Path, notes: list[str]) -> tuple[str, Json]:
    if not path.exists():
        notes.append("config.yaml is missing.")
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        notes.append(f"config.yaml cannot be read: {error}.")
        return text, {}
    return text, config if isinstance(config, dict) else {}


def _metrics(folder: Path, notes: list[str]) -> tuple[tuple[Mapping[str, float], ...], dict[str, int]]:
    rows: dict[int, dict[str, float]] = {}
    not_finite: dict[str, int] = {}
    trained = not (folder / "evaluations").exists()  # `align evaluate` writes evaluations alone
    for record in _lines(folder / "metrics.jsonl", notes, required=trained):
        if not _is_number(record.get("step")):
            continue
        finite = {name: float(value) for name, value in record.items() if _is_number(value)}
        for name in record.keys() - finite.keys():
            not_finite[name] = not_finite.get(name, 0) + 1
        rows[int(record["step"])] = finite  # a resumed run may have written a step twice: the later line holds
    return tuple(rows[step] for step in sorted(rows)), not_finite


def _plan(path: Path, notes: list[str]) -> Plan | None:
    record = _object(path, notes)
    if record is None:
        return None
    sections = tuple(
        Section(
            title=str(section.get("title", "")), rows=tuple(_texts(row, none="") for row in section.get("rows", ()))
        )
        for section in record.get("sections", ())
    )
    differences = tuple(_texts(row, none="null") for row in record.get("differences", ()))
    return Plan(title=str(record.get("title", "Plan")), sections=sections, differences=differences)


def _evaluations(folder: Path, notes: list[str]) -> tuple[Evaluation, ...]:
    found = [_evaluation(path, notes) for path in sorted(folder.glob("step_*.json"))]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.step))


def _evaluation(path: Path, notes: list[str]) -> Evaluation | None:
    record = _object(path, notes)
    step = _step_of(path.stem)
    if record is None or step is None:
        return None
    rows = tuple(
        EvaluationRow(
            prompt=str(row.get("prompt", "")),
            group=str(row.get("class") or "all"),
            seed=int(row.get("seed", 0)),
            rewards=_numbers(row.get("rewards")),
            completion=None if row.get("completion") is None else str(row["completion"]),
        )
        for row in record.get("rows", ())
    )
    return Evaluation(
        step=step,
        weights=str(record.get("weights", "raw")),
        rewards=_intervals(record.get("rewards")),
        classes={str(name): _intervals(value) for name, value in (record.get("classes") or {}).items()},
        rows=rows,
        pictures=tuple(sorted((path.parent / "pictures" / path.stem).glob("*.png"))),
        parity={str(name): _parity(value) for name, value in (record.get("parity") or {}).items()},
    )


def _parity(record: Json) -> Parity:
    numbers = {name: _number(record.get(name)) for name in ("mean", "worst", "low", "gini")}
    return Parity(**numbers, groups=_intervals(record.get("groups")))


def _strip(folder: Path, notes: list[str]) -> tuple[Tile, ...]:
    tiles: dict[tuple[int, str, int], Tile] = {}
    for record in _lines(folder / "strip.jsonl", notes, required=False):
        image = _picture(folder, record.get("image"))
        if image is None or not _is_number(record.get("step")):
            continue
        tile = Tile(
            step=int(record["step"]),
            prompt=str(record.get("prompt", "")),
            group=str(record.get("class") or "all"),
            seed=int(record.get("seed", 0)),
            image=image,
            rewards=_numbers(record.get("rewards")),
        )
        tiles[tile.step, tile.prompt, tile.seed] = tile
    return tuple(tiles.values())


def _samples(folder: Path, notes: list[str]) -> tuple[int | None, tuple[Sample, ...]]:
    """Samples of the newest step that has a picture of at least one."""
    for path in sorted((folder / "samples").glob("step_*.jsonl"), reverse=True):
        found = []
        for record in _lines(path, notes):
            image = _picture(path.parent, record.get("image"))
            if image is not None:
                found.append(
                    Sample(
                        prompt=str(record.get("prompt", "")),
                        image=image,
                        rewards=_numbers(record.get("rewards")),
                        score=_number(record.get("score")),
                        advantage=_number(record.get("advantage")),
                    )
                )
        if found:
            return _step_of(path.stem), tuple(found)
    return None, ()


def _picture(folder: Path, name: object) -> Path | None:
    """The picture file, whether its name is relative to the table's folder or to the run folder."""
    if not isinstance(name, str) or not name:
        return None
    return next((path for base in (folder, folder.parent) if (path := base / name).is_file()), None)


def _lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[Json]:
    """JSON objects of a file, one a line; a damaged line is noted and skipped."""
    if not path.exists():
        if required:
            notes.append(f"{path.name} is missing.")
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            notes.append(f"{path.name}, line {number} is damaged (cut off while it was written?) and was left out.")


def _object(path: Path, notes: list[str]) -> Json | None:
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        notes.append(f"{path.name} is damaged (cut off while it was written?) and was left out.")
        return None
    return record


def _step_of(stem: str) -> int | None:
    match = re.fullmatch(r"step_(\d+)", stem)
    return int(match[1]) if match else None


def _intervals(record: object) -> dict[str, Interval]:
    if not isinstance(record, dict):
        return {}
    return {
        str(name): Interval(
            mean=_number(value.get("mean")),
            low=_number(value.get("low")),
            high=_number(value.get("high")),
            n=int(value.get("n") or 0),
        )
        for name, value in record.items()
        if isinstance(value, dict)
    }


def _numbers(record: object) -> dict[str, float]:
    return {str(name): _number(value) for name, value in record.items()} if isinstance(record, dict) else {}


def _texts(row: object, *, none: str) -> tuple[str, str, str]:
    """Three texts of a row of the plan; missing cells are empty."""
    cells = list(row) if isinstance(row, list | tuple) else [row]
    first, second, third = ([none if cell is None else str(cell) for cell in cells] + ["", "", ""])[:3]
    return first, second, third


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
