"""Rows of a source -> prompts and answers in one format, with a report of the rows that cannot be used. Torch-free.

    read_pairs      prompt, chosen, rejected
    read_responses  prompt and one answer (`prompt` and `completion`, or `messages`, or `text`, or the chosen of a pair)
    read_prompts    prompts alone

`align plan` and the checks read the same rows before anything heavy is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from align.errors import AlignError, did_you_mean
from preference.config.data import PairsConfig
from preference.formats import TextRow, Unusable, as_chat, as_text, normalise, readable
from preference.tables import Table, open_table

SHOWN = 5
"""Bad rows that an error lists; the rest is counted."""
RESERVED = ("prompts", "images", "completions", "completion_ids")
"""Keyword arguments that every reward receives already."""
SCORES = ("score_chosen", "score_rejected")
"""Columns that hold numbers, where they are there at all."""

BadRows = Literal["error", "skip"]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What became of the rows of a source.

    Attributes:
        source: where they come from.
        read: rows of the source.
        used: rows that are left.
        dropped: why rows were left out -> how many.
        notes: what was done to rows that stay -> how many.
        examples: some of the rows that cannot be used, with place and reason.
    """

    source: str
    read: int
    used: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for the log and the plan."""
        parts = [f"{self.used:,} of {self.read:,} rows"]
        parts += [f"{count:,} left out: {reason}" for reason, count in self.dropped.items()]
        parts += [f"{count:,} {what}" for what, count in self.notes.items()]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Prompts and their answers before they become tokens.

    Attributes:
        rows: prompt and answers: of pairs the chosen one first.
        numbers: row of the source, from 0.
        places: where a person finds it.
        columns: further columns, one entry a row (Any: a user's data).
        report: what became of the rows of the source.
    """

    rows: tuple[TextRow, ...]
    numbers: tuple[int, ...]
    places: tuple[str, ...]
    columns: Mapping[str, tuple[Any, ...]]
    report: DataReport

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prompts(self) -> list[str]:
        """Prompts as people read them."""
        return [readable(row.prompt) for row in self.rows]

    def select(self, rows: Sequence[int]) -> Texts:
        """The rows at these positions, in that order."""
        return replace(
            self,
            rows=tuple(self.rows[i] for i in rows),
            numbers=tuple(self.numbers[i] for i in rows),
            places=tuple(self.places[i] for i in rows),
            columns={name: tuple(values[i] for i in rows) for name, values in self.columns.items()},
        )


def read_pairs(source: str, settings: PairsConfig, *, split: str | None = None) -> Texts:
    """The pairs of a source.

    Args:
        source: file, folder, hub id or built-in set.
        settings: names of columns, and what becomes of bad rows.
        split: taken where the source has several; None = `settings.train_split`.

    Raises:
        AlignError: no such source, a missing column, bad rows (with their places), or no row at all.
    """
    names = (settings.prompt, settings.chosen, settings.rejected)
    place = _Place(source, split or settings.train_split, settings.subset, settings.revision, _changed(source))
    return _pairs(place, names, settings.bad_rows, settings.plain_as_chat, settings.shared_words)


def read_responses(source: str, settings: PairsConfig | None = None, *, split: str | None = None) -> Texts:
    """Prompts with one answer each, for supervised fine-tuning.

    Columns `prompt` and `completion`, or `messages` (all turns but the last are the prompt), or `text` (no prompt), or
    those of a pair, of which the chosen answer is taken.

    Args:
        source: file, folder, hub id or built-in set.
        settings: names of a pair's columns, and what becomes of bad rows; None = the defaults.
        split: taken where the source has several; None = `settings.train_split`.

    Raises:
        AlignError: no such source, no such columns, bad rows (with their places), or no row at all.
    """
    settings = settings or PairsConfig()
    split = split or settings.train_split
    place = _Place(source, split, settings.subset, settings.revision, _changed(source))
    pair = (settings.prompt, settings.chosen, settings.rejected)
    return _responses(place, pair, settings.bad_rows, settings.plain_as_chat, settings.shared_words)


@lru_cache(maxsize=2)
def _responses(
    place: _Place, pair: tuple[str, str, str], bad_rows: BadRows, as_turns: bool, shared_words: bool
) -> Texts:
    prompt, chosen, rejected = pair
    table = open_table(place.source, split=place.split, subset=place.subset, revision=place.revision)
    known = (("prompt", "completion"), ("messages",), ("text",), (prompt, chosen), (chosen,))
    names = next((names for names in known if set(names) <= set(table.columns)), None)
    if names is None:
        shown = ", or ".join(" and ".join(f"`{name}`" for name in names) for names in known[:-1])
        raise AlignError(
            f"{place.source}: expected the columns {shown}; found {', '.join(table.columns) or 'none'}.",
            "Rename the columns, or name yours in `data.prompt` and `data.chosen`.",
        )
    answers = names[-1:]
    if names == (chosen,) and rejected in table.columns:
        answers = (chosen, rejected)  # the turns that both share are the prompt

    def read(row: Mapping[str, Any]) -> TextRow:
        given = _present(row, names[0]) if len(names) == 2 else "" if names == ("text",) else None
        sides = [_present(row, name) for name in answers]
        found = normalise(given, sides, answers, row, shared_words=shared_words)
        return _as_turns(replace(found, responses=found.responses[:1]), as_turns)

    return _collect(table, read, (*names, rejected), bad_rows)


def read_prompts(
    source: str, *, split: str = "train", column: str = "prompt", bad_rows: BadRows = "error", as_turns: bool = False
) -> Texts:
    """Prompts without answers; in a file of pairs of whole conversations, the turns that both share.

    Args:
        source: file (also .txt, one prompt a line), folder or hub id.
        split: taken where the source has several.
        column: of the prompt.
        bad_rows: stop at rows that cannot be used, or leave them out.
        as_turns: take plain texts for turns of a user.
    """
    table = _lines_of(source) if source.lower().endswith(".txt") else open_table(source, split=split)
    if column not in table.columns and not {"chosen", "rejected"} <= set(table.columns):
        raise _missing(source, column, table.columns)

    def read(row: Mapping[str, Any]) -> TextRow:
        if column not in table.columns:
            pair = normalise(None, [_present(row, name) for name in SIDES], SIDES, row)
            return _as_turns(replace(pair, responses=()), as_turns)
        prompt = as_text(_present(row, column), column)
        if not readable(prompt).strip():
            raise Unusable(f"`{column}` is empty")
        return _as_turns(normalise(prompt, (), (), row), as_turns)

    return _collect(table, read, (column, *SIDES), bad_rows)


SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class _Place:
    """A source, and when it was changed."""

    source: str
    split: str
    subset: str | None
    revision: str | None
    changed: int


def _changed(source: str) -> int:
    path = Path(source).expanduser()
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=2)
def _pairs(place: _Place, names: tuple[str, str, str], bad_rows: BadRows, as_turns: bool, shared_words: bool) -> Texts:
    table = open_table(place.source, split=place.split, subset=place.subset, revision=place.revision)
    prompt, *answers = names
    for name in answers:
        if table.columns and name not in table.columns:  # without any, every row is bad, or there is none
            raise _missing(place.source, name, table.columns)

    def read(row: Mapping[str, Any]) -> TextRow:
        _check_scores(row)
        sides = [_present(row, name) for name in answers]
        found = normalise(row.get(prompt), sides, answers, row, shared_words=shared_words)
        return _as_turns(found, as_turns)

    return _collect(table, read, names, bad_rows)


def _as_turns(row: TextRow, wanted: bool) -> TextRow:
    return as_chat(row) if wanted else row


def _missing(source: str, name: str, columns: Sequence[str]) -> AlignError:
    return AlignError(
        f"{source} has no column `{name}`.{did_you_mean(name, columns)}",
        f"Its columns are {', '.join(columns) or 'none'}; name yours in `data`.",
    )


def _present(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise Unusable(f"`{name}` is missing")
    return row[name]


def _check_scores(row: Mapping[str, Any]) -> None:
    for name in SCORES:
        value = row.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            raise Unusable(f"`{name}` is {value}")


def _lines_of(source: str) -> Table:
    try:
        lines = Path(source).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AlignError(f"{source} cannot be read: {error}.", "Give a UTF-8 file with one prompt a line.") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    rows = [{"prompt": line} for _, line in numbered]
    return Table(source=source, columns=("prompt",), rows=rows, lines=[number for number, _ in numbered])


def _collect(
    table: Table, read: Callable[[Mapping[str, Any]], TextRow], own: Sequence[str], bad_rows: BadRows
) -> Texts:
    """All rows that can be read; the others are reported, or stop the run."""
    taken = [name for name in RESERVED if name in table.columns and name not in own]
    if taken:
        raise AlignError(
            f"{table.source}: column `{taken[0]}` has a name that rewards receive already.", "Rename the column."
        )
    kept: list[tuple[int, TextRow]] = []
    bad: list[str] = []
    for number, row in enumerate(table.rows):
        try:
            if isinstance(row, str):
                raise Unusable(row)
            kept.append((number, read(row)))
        except Unusable as problem:
            bad.append(f"{table.place(number)}: {problem}")
    if bad and bad_rows == "error":
        raise bad_rows_error(table.source, bad)
    if not kept:
        reason = f"{len(bad)} cannot be used, such as {bad[0]}" if bad else "it is empty"
        raise AlignError(f"{table.source} has no row that can be used ({reason}).", "Repair the file.")
    numbers, rows = zip(*kept, strict=True)
    report = DataReport(
        source=table.source,
        read=len(table),
        used=len(rows),
        dropped={"not usable": len(bad)} if bad else {},
        examples=tuple(bad[:SHOWN]),
    )
    return Texts(
        rows=rows,
        numbers=numbers,
        places=tuple(table.place(number) for number in numbers),
        columns=_further(table, numbers, (*own, "tools", "chat_template_kwargs")),
        report=report,
    )


def _further(table: Table, numbers: Sequence[int], own: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    names = [name for name in table.columns if name not in own]
    rows: list[Mapping[str, Any]] = [row for row in (table.rows[i] for i in numbers) if not isinstance(row, str)]
    return {name: tuple(row.get(name) for row in rows) for name in names}


def bad_rows_error(source: str, bad: Sequence[str]) -> AlignError:
    """The error that lists rows which cannot be used.

    Args:
        source: where they come from.
        bad: place and reason of each.
    """
    rows = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
    return AlignError(
        "\n".join([f"{source} has {rows} that cannot be used:", *listed(bad)]),
        "Repair or delete them, or leave them out with `data.bad_rows: skip`.",
    )


def listed(bad: Sequence[str]) -> Iterator[str]:
    """The first few of many, and how many more there are."""
    yield from bad[:SHOWN]
    if len(bad) > SHOWN:
        yield f"... and {len(bad) - SHOWN} more"


def with_notes(
    report: DataReport, used: int, dropped: Counter[str], notes: Counter[str], bad: Sequence[str]
) -> DataReport:
    """The report after a further stage has left out and changed rows."""
    return replace(
        report,
        used=used,
        dropped=dict(Counter(report.dropped) + dropped),
        notes=dict(Counter(report.notes) + notes),
        examples=(*report.examples, *bad)[:SHOWN],
    )
