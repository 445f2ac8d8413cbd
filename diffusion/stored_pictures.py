"""Stored pictures and pairs of pictures: which rows can be used, in which order their pictures stand. Torch-free.

All rows are looked at before a run begins, their pictures are not: a JSONL file says where they are, and that is
checked; a picture that turns out to be unreadable is met when its turn comes (`diffusion.latent_store`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from pathlib import Path
from typing import Any

from align.errors import AlignError, did_you_mean
from diffusion.config.image_data import ImagesConfig, ImageSource, PairsConfig
from diffusion.stored_tables import Table, open_table
from diffusion.tiny.pairs import painted_pairs

SHOWN = 5
"""Bad rows that an error lists; the rest is counted."""
TIE = "no preference"
PICK_A_PIC = ("caption", "jpg_0", "jpg_1", "label_0")
BUILTIN = {"builtin:tiny/pairs": painted_pairs}
"""Tables that are made, not read."""


class Unusable(Exception):  # noqa: N818 - named for the row, as its message is
    """A row or a picture that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a row has what.

    Attributes:
        prompt: column of the prompt.
        pictures: columns of the pictures; of a pair the better one first, unless there is a label.
        label: column that is 1 where the first picture is better, 0 where the second is; None = the first always.
    """

    prompt: str
    pictures: tuple[str, ...]
    label: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return (self.prompt, *self.pictures, *(() if self.label is None else (self.label,)))

    def turned(self, row: Mapping[str, Any]) -> bool | None:
        """Whether the second picture is the better one; None where neither is.

        Raises:
            Unusable: the label is no number from 0 to 1.
        """
        if self.label is None:
            return False
        label = row.get(self.label)
        if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
            raise Unusable(f"`{self.label}` must be a number from 0 to 1, found {label!r:.40}")
        return label == 0 if label in (0, 1) else None


@singledispatch
def layout_of(config: Any, columns: tuple[str, ...]) -> Layout:
    """The layout that the settings name, or the one that the columns show (`Any`: the kinds of `ImageSource`)."""
    raise TypeError(f"no layout for {type(config).__name__}")


@layout_of.register
def _(config: ImagesConfig, columns: tuple[str, ...]) -> Layout:
    return Layout(prompt=config.prompt, pictures=(config.image,))


@layout_of.register
def _(config: PairsConfig, columns: tuple[str, ...]) -> Layout:
    if not {config.chosen, config.rejected} & set(columns) and set(PICK_A_PIC[1:]) <= set(columns):
        prompt = config.prompt if config.prompt in columns else PICK_A_PIC[0]
        return Layout(prompt=prompt, pictures=PICK_A_PIC[1:3], label=PICK_A_PIC[3])
    return Layout(prompt=config.prompt, pictures=(config.chosen, config.rejected))


@dataclass(frozen=True, kw_only=True)
class StoredPictures:
    """The rows that can be used, numbered from 0 in the order of the file.

    Attributes:
        table: the file.
        layout: its columns.
        rows: row of the table.
        prompts: its prompt.
        turned: whether its second picture is the better one.
        left_out: why rows are not here -> how many.
    """

    table: Table
    layout: Layout
    rows: tuple[int, ...]
    prompts: tuple[str, ...]
    turned: tuple[bool, ...]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Where a person finds it."""
        return self.table.place(self.rows[row])

    def contents(self, row: int) -> tuple[bytes, ...]:
        """The bytes of its picture files: one, or of a pair the better one first.

        Raises:
            Unusable: one of them is not there.
        """
        names = self.layout.pictures[:: -1 if self.turned[row] else 1]
        found = self.table.row(self.rows[row], names)
        return tuple(_contents(name, found.get(name), _folder(self.table)) for name in names)


@lru_cache(maxsize=4)
def _read(config: ImageSource, changed: int) -> StoredPictures:
    table = BUILTIN[config.path]() if config.path in BUILTIN else open_table(Path(config.path))
    layout = layout_of(config, tuple(table.columns))
    missing = [name for name in layout.columns if name not in table.columns]
    if missing:
        raise AlignError(
            f"{config.path} has no column `{missing[0]}`.{did_you_mean(missing[0], table.columns)}",
            f"Its columns are {', '.join(table.columns) or 'none'}; name yours in `algorithm.data`.",
        )
    left_out: Counter[str] = Counter()
    bad: list[str] = []
    kept: list[tuple[int, str, bool]] = []
    for number, row in enumerate(table.read(_looked_at(table, layout))):
        try:
            turned = _turned(table, layout, row)
        except Unusable as problem:
            bad.append(f"{table.place(number)}: {problem}")
            continue
        if turned is None:
            left_out[TIE] += 1
        else:
            kept.append((number, row[layout.prompt].strip(), turned))
    if bad and config.bad_rows == "error":
        raise _bad_rows(config, bad)
    if bad:
        left_out["not usable"] = len(bad)
    if not kept:
        raise AlignError(f"{config.path} has no row that can be used ({_counts(left_out) or 'it is empty'}).")
    rows, prompts, turned_rows = zip(*kept, strict=True)
    return StoredPictures(
        table=table, layout=layout, rows=rows, prompts=prompts, turned=turned_rows, left_out=dict(left_out)
    )


def read_pictures(config: ImageSource) -> StoredPictures:
    """The rows of a data set.

    Args:
        config: where they are, what the columns are called, and what becomes of bad rows.

    Raises:
        AlignError: the file is missing or of another kind, lacks a column, or has bad rows (with their places).
    """
    path = Path(config.path)
    return _read(config, path.stat().st_mtime_ns if path.exists() else 0)


def _looked_at(table: Table, layout: Layout) -> tuple[str, ...]:
    """Columns that are read of all rows: pictures only where they are named, not where they are stored."""
    return tuple(name for name in layout.columns if not (table.stored and name in layout.pictures))


def _turned(table: Table, layout: Layout, row: Mapping[str, Any]) -> bool | None:
    """`Layout.turned` of a row without a mistake."""
    if "" in row:
        raise Unusable(str(row[""]))
    prompt = row.get(layout.prompt)
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unusable(f"`{layout.prompt}` must be a text, found {prompt!r:.40}")
    for name in set(layout.pictures) & set(_looked_at(table, layout)):
        value = row.get(name)
        if not isinstance(value, str):
            raise Unusable(f"`{name}` must be the path of a picture, found {value!r:.40}")
        if not (_folder(table) / value).is_file():
            raise Unusable(f"`{name}`: there is no file {_folder(table) / value}")
    return layout.turned(row)


def _contents(name: str, value: Any, folder: Path) -> bytes:
    """Bytes of a picture file (`Any`: whatever the column holds)."""
    if isinstance(value, Mapping):  # how `datasets` stores a picture
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        try:
            return (folder / value).read_bytes()
        except OSError as error:
            raise Unusable(f"`{name}`: {error}") from error
    if isinstance(value, bytes) and value:
        return value
    raise Unusable(f"`{name}` must be the path or the bytes of a picture, found {value!r:.40}")


def _folder(table: Table) -> Path:
    return table.path if table.path.is_dir() else table.path.parent


def _counts(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _listed(bad: list[str]) -> Iterator[str]:
    yield from bad[:SHOWN]
    if len(bad) > SHOWN:
        yield f"... and {len(bad) - SHOWN} more"


def _bad_rows(config: ImageSource, bad: list[str]) -> AlignError:
    rows = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
    return AlignError(
        "\n".join([f"{config.path} has {rows} that cannot be used:", *_listed(bad)]),
        "Repair or delete them, or leave them out with `algorithm.data.bad_rows: skip`.",
    )
