"""Files of candidates: a prompt and several answers in a row, written piece by piece so that a stop loses little.

    {"row": 0, "prompt": [...], "candidates": ["...", ...], "finish": ["stop", ...], "tokens": [12, ...],
     "model": "...", "sampling": {...}, "seed": 0, further columns of the prompt file}

While they are made, the rows lie in `NAME.parts/`, one file for each process; whoever goes on reads them all, so the
number of processes may change in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError

if TYPE_CHECKING:
    from align.engine.distributed import Processes

OWN = ("row", "prompt", "candidates", "finish", "tokens", "model", "sampling", "seed")
"""Fields that a prompt file cannot have as further columns."""
SCORED = ("rewards", "scores", "weights")
"""Fields that scoring adds."""
SETTINGS = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One candidate.

    Attributes:
        text: without end token.
        finish: `stop` where the model ended it, `length` where it was cut, or a server's own word.
        tokens: how many, the end token included; None where a server does not say.
    """

    text: str
    finish: str
    tokens: int | None


class CandidateParts:
    """The rows of a file that is being made.

    Args:
        output: the file to be.
        settings: what the rows depend on; parts of other settings are never mixed in.
        processes: who shares the work.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], processes: Processes) -> None:
        self._output, self._processes = output, processes
        self._settings = json.loads(json.dumps(settings))
        self.folder = output.with_name(f"{output.name}.parts")
        self._own = self.folder / f"{processes.rank:05d}.jsonl"

    def begin(self) -> set[int]:
        """Numbers of the rows that are there already. A collective.

        Raises:
            AlignError: the parts are of other settings.
        """
        problem = self._prepare() if self._processes.is_main else None
        problem = self._processes.from_main(problem)
        if problem is not None:
            raise AlignError(*problem)
        return set(self._processes.from_main(sorted(self._rows()) if self._processes.is_main else []))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of this process, whole lines at once."""
        with self._own.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def merge(self) -> None:
        """Put all parts together, in the order of the rows. A collective; the parts are gone afterwards."""
        self._processes.barrier()
        if self._processes.is_main:
            rows = self._rows()
            write_rows(self._output, [rows[number] for number in sorted(rows)])
            shutil.rmtree(self.folder)
        self._processes.barrier()

    def _prepare(self) -> tuple[str, str] | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known != self._settings:
                changed = [name for name in self._settings if known.get(name) != self._settings[name]]
                return (
                    f"{self.folder} holds candidates that were made with another {', '.join(changed)}.",
                    "Go on with the settings of before, delete the folder, or give another --output.",
                )
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._settings, indent=1), encoding="utf-8")
        os.replace(draft, path)
        for part in sorted(self.folder.glob("*.jsonl")):
            _cut_torn_line(part)
        return None

    def _rows(self) -> dict[int, Mapping[str, Any]]:
        parts = [part.read_text(encoding="utf-8") for part in sorted(self.folder.glob("*.jsonl"))]
        rows = [json.loads(line) for text in parts for line in text.split("\n") if line]
        return {int(row["row"]): row for row in rows}


def _cut_torn_line(path: Path) -> None:
    """A process that is killed while it writes leaves half a line at the end."""
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        with path.open("rb+") as file:
            file.truncate(end)


def check_new(path: Path) -> None:
    """Refuse, before anything heavy, a file that is there already or that could not be written in the end.

    Raises:
        AlignError: with what to do.
    """
    check_ending(path)
    if path.exists():
        raise AlignError(f"{path} is there already.", "Give another --output, or delete it; nothing is overwritten.")


def check_ending(path: Path) -> None:
    """Refuse a file of another format.

    Raises:
        AlignError: names those that can be written.
    """
    if path.suffix not in _WRITERS:
        raise AlignError(f"{path}: expected a file ending in {' or '.join(_WRITERS)}.", "Rename the output.")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, or as Parquet where the name ends so; in one go.

    Raises:
        AlignError: another ending.
    """
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    _WRITERS[path.suffix](draft, rows)
    os.replace(draft, path)
    return path


def _write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    except pyarrow.ArrowException as error:
        raise AlignError(
            f"these rows do not fit into a Parquet table: {str(error)[:200]}.", "Write .jsonl instead."
        ) from error


_WRITERS = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
