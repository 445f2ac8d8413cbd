"""Files of rows: JSON, JSON lines, CSV, Parquet, folders and hub ids of the `datasets` library. Torch-free.

All rows are read; what is wrong with a line is a row, too, and is reported with the others.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError, did_you_mean

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
BUILTIN = {f"builtin:tiny/{split}": split for split in ("train", "heldout")}
"""Rows of the embedded model's world."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and where a person finds them (Any: a user's data).

    Attributes:
        source: the file, folder or hub id.
        columns: names.
        rows: what a row holds; a text says what is wrong with a row that is none.
        lines: line number of each row, from 1; None where rows are counted from 0.
    """

    source: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any] | str]
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Where a person finds the row."""
        return f"{self.source}, row {row}" if self.lines is None else f"{self.source}:{self.lines[row]}"


def open_table(source: str, *, split: str = "train", subset: str | None = None, revision: str | None = None) -> Table:
    """The rows of a file, a folder, a hub id, or a built-in set.

    Args:
        source: where they are.
        split: taken where the source has several.
        subset: name of the subset of a hub id.
        revision: of a hub id.

    Raises:
        AlignError: there is nothing of this name, it is of another kind, or it cannot be read.
    """
    path = _builtin(source) if source.startswith("builtin:") else Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, split)
    if path.is_file():
        opener = _OPENERS.get(path.suffix.lower())
        if opener is None:
            raise AlignError(
                f"{path}: expected a file ending in {', '.join(_OPENERS)}, found {path.suffix or 'no ending'}.",
                "Write the rows as JSON lines, or with `datasets.Dataset.save_to_disk`.",
            )
        return opener(path)
    if HUB_ID.fullmatch(source) and path.suffix.lower() not in _OPENERS:
        return _open_hub(source, split, subset, revision)
    raise AlignError(
        f"expected rows at {source}, found nothing (looked in {Path.cwd()}), and it is no hub id `owner/name`.",
        f"Give a file ending in {', '.join(_OPENERS)}, a folder of `save_to_disk`, or one of {', '.join(BUILTIN)}.",
    )


def is_local(source: str) -> bool:
    """Whether reading it asks nobody on the network."""
    return source.startswith("builtin:") or Path(source).expanduser().exists() or not HUB_ID.fullmatch(source)


def _builtin(source: str) -> Path:
    if source not in BUILTIN:
        raise AlignError(
            f"expected a built-in set of pairs, found {source!r}.{did_you_mean(source, BUILTIN)}",
            f"Known: {', '.join(BUILTIN)}.",
        )
    return Path(__file__).resolve().parent / "tiny" / "pairs" / f"{BUILTIN[source]}.jsonl"


# --- files ------------------------------------------------------------------------------------------------------------


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AlignError(f"{path} cannot be read: {error}.", "Save the file as UTF-8.") from error


def _columns_of(rows: Sequence[Mapping[str, Any] | str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows if not isinstance(row, str) for name in row))


def _open_jsonl(path: Path) -> Table:
    # Split at newlines only: str.splitlines would also split at characters that texts may hold (U+2028 ...).
    numbered = [(number, line) for number, line in enumerate(_text_of(path).split("\n"), 1) if line.strip()]
    rows = [_parsed(line) for _, line in numbered]
    return Table(source=str(path), columns=_columns_of(rows), rows=rows, lines=[number for number, _ in numbered])


def _parsed(line: str) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return _object(row)


def _object(row: Any) -> Mapping[str, Any] | str:
    return row if isinstance(row, dict) else f"expected an object, found {json.dumps(row)[:40]}"


def _open_json(path: Path) -> Table:
    """A list of objects, or one object that holds such a list."""
    text = _text_of(path)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}."
        raise AlignError(message, "Expected a list of objects; one object a line is a .jsonl file.") from error
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else [found]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise AlignError(f"{path}: expected a list of objects, found {text.strip()[:40]!r}.", "Write a list.")
    rows = [_object(row) for row in lists[0]]
    return Table(source=str(path), columns=_columns_of(rows), rows=rows)


def _open_csv(path: Path) -> Table:
    reader = csv.DictReader(io.StringIO(_text_of(path), newline=""))
    rows, lines = [], []
    for row in reader:
        torn = None in row or None in row.values()
        rows.append("expected as many cells as there are columns" if torn else dict(row))
        lines.append(reader.line_num)
    return Table(source=str(path), columns=tuple(reader.fieldnames or ()), rows=rows, lines=lines)


# --- the library `datasets` -------------------------------------------------------------------------------------------


def _open_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise AlignError(f"{path} cannot be read: {str(error)[:200]}.", "Expected a Parquet file.") from error
    return Table(source=str(path), columns=tuple(found.column_names), rows=found.to_pylist())


def _open_folder(path: Path, split: str) -> Table:
    return _arrow(str(path), lambda datasets: datasets.load_from_disk(str(path)), split)


def _open_hub(name: str, split: str, subset: str | None, revision: str | None) -> Table:
    return _arrow(name, lambda datasets: datasets.load_dataset(name, subset, revision=revision), split)


def _arrow(source: str, load: Callable[[Any], Any], split: str) -> Table:
    import datasets

    datasets.disable_progress_bars()
    try:
        found = load(datasets)
    except Exception as error:  # each format has its own errors
        raise AlignError(
            f"{source} cannot be read: {type(error).__name__}: {str(error)[:200]}.",
            "Expected a folder written by `datasets.Dataset.save_to_disk`, or the id of a data set on the hub.",
        ) from error
    if isinstance(found, Mapping):
        if split not in found:
            raise AlignError(
                f"{source} has no split {split!r}.{did_you_mean(split, found)}", f"It has {', '.join(found)}."
            )
        found = found[split]
    return Table(source=source, columns=tuple(found.column_names), rows=list(_rows(found)))


def _rows(dataset: Any) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter(1000):
        count = len(next(iter(batch.values()))) if batch else 0
        yield from ({name: values[i] for name, values in batch.items()} for i in range(count))


_OPENERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _open_jsonl,
    ".json": _open_json,
    ".csv": _open_csv,
    ".parquet": _open_parquet,
}
