"""Files of rows: JSON lines, Parquet, and folders of the `datasets` library, behind one small interface. Torch-free.

Parquet is read through `datasets`, which keeps a memory-mapped copy in its own cache: any row of a large file is at
hand without the file being in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from align.errors import AlignError

BATCH = 1000
"""Rows that are read at once where all of them are looked at."""


class Table(Protocol):
    """Rows by number, from 0 (Any: a user's data)."""

    @property
    def path(self) -> Path:
        """The file or folder; paths of pictures are relative to its folder."""
        ...

    @property
    def stored(self) -> bool:
        """Whether pictures may lie in the table itself, so that reading all of them is expensive."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Names."""
        ...

    def __len__(self) -> int: ...

    def place(self, row: int) -> str:
        """Where a person finds the row."""
        ...

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All rows, in order, with these columns only."""
        ...

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """One row, with these columns only."""
        ...


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """Rows of a JSONL file, all in memory: pictures are paths there.

    Attributes:
        path: the file.
        lines: line number of each row, from 1.
        rows: what the line holds; a text says what is wrong with a line that is no JSON object.
    """

    path: Path
    lines: tuple[int, ...]
    rows: tuple[dict[str, Any] | str, ...]

    @property
    def stored(self) -> bool:
        return False

    @property
    def columns(self) -> Sequence[str]:
        return tuple(dict.fromkeys(name for row in self.rows if isinstance(row, dict) for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        return f"{self.path}:{self.lines[row]}"

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return (self.row(number, columns) for number in range(len(self)))

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        found = self.rows[row]
        if isinstance(found, str):
            return {"": found}  # no column is called that
        return {name: found[name] for name in columns if name in found}


@dataclass(frozen=True, kw_only=True)
class ArrowTable:
    """A memory-mapped table of the `datasets` library (Any: it has no types of its own here)."""

    path: Path
    dataset: Any

    @property
    def stored(self) -> bool:
        return True

    @property
    def columns(self) -> Sequence[str]:
        return tuple(self.dataset.column_names)

    def __len__(self) -> int:
        return len(self.dataset)

    def place(self, row: int) -> str:
        return f"{self.path}, row {row}"

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self.dataset.select_columns(list(columns)).iter(BATCH):
            count = len(next(iter(batch.values())))
            yield from ({name: values[i] for name, values in batch.items()} for i in range(count))

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        return self.dataset.select_columns(list(columns))[row]


def open_table(path: Path) -> Table:
    """The rows of a file or folder.

    Raises:
        AlignError: there is none, it is of another kind, or it cannot be read.
    """
    if not path.exists():
        raise AlignError(
            f"expected a file or folder of pictures at {path}, found nothing.", "Check `algorithm.data.path`."
        )
    opener = _open_folder if path.is_dir() else _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise AlignError(
            f"{path}: expected a file ending in {' or '.join(_OPENERS)}, or a folder, found {path.suffix or 'none'!r}.",
            "Write the rows as JSON lines or Parquet, or with `datasets.Dataset.save_to_disk`.",
        )
    return opener(path)


def _open_jsonl(path: Path) -> Table:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AlignError(f"{path} cannot be read: {error}.", "Save the file as UTF-8.") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return JsonLines(
        path=path, lines=tuple(number for number, _ in numbered), rows=tuple(_parsed(line) for _, line in numbered)
    )


def _parsed(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return row if isinstance(row, dict) else f"expected an object, found {json.dumps(row)[:40]}"


def _open_parquet(path: Path) -> Table:
    return _arrow(path, lambda datasets: datasets.Dataset.from_parquet(str(path)))


def _open_folder(path: Path) -> Table:
    return _arrow(path, lambda datasets: datasets.load_from_disk(str(path)))


def _arrow(path: Path, load: Callable[[Any], Any]) -> Table:
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset = load(datasets)
    except Exception as error:  # each format has its own errors
        raise AlignError(
            f"{path} cannot be read: {type(error).__name__}: {str(error)[:200]}.",
            "Expected a Parquet file, or a folder written by `datasets.Dataset.save_to_disk`.",
        ) from error
    if not isinstance(dataset, datasets.Dataset):
        raise AlignError(
            f"{path} holds several splits ({', '.join(dataset)}).", "Set `algorithm.data.path` to the folder of one."
        )
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return ArrowTable(path=path, dataset=dataset)


_OPENERS: dict[str, Callable[[Path], Table]] = {".jsonl": _open_jsonl, ".parquet": _open_parquet}
