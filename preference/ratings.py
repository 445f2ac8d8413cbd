"""Answers rated in several attributes -> one row an answer, one column an attribute. Torch-free but for `table()`.

| what a row holds | as in |
|---|---|
| `prompt`, `response`, and a number for each attribute | HelpSteer, HelpSteer2 |
| `instruction`, `completions`: a list of {`response`, `annotations`: attribute -> {`Rating`}} | UltraFeedback |

Answers to equal prompts are a group, wherever they stand. The table is what `align.shaping` weighs and `align.pairs`
makes pairs of, as with rewards of generated answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import AlignError, did_you_mean
from preference.data import SHOWN, BadRows, DataReport, bad_rows_error
from preference.formats import TextRow, Unusable, normalise
from preference.tables import Table, open_table

if TYPE_CHECKING:
    from align.types import RewardTable

PROMPTS = ("prompt", "instruction")
RESPONSES = ("response", "completion")


@dataclass(frozen=True, kw_only=True)
class RatedTexts:
    """Answers and their ratings.

    Attributes:
        rows: prompt and one answer each.
        group_ids: equal for answers to the same prompt; 0, 1, ... in the order of first appearance.
        names: attributes.
        values: one rating for each attribute, in the unit of the source; NaN where there is none.
        report: what became of the rows of the source.
    """

    rows: tuple[TextRow, ...]
    group_ids: tuple[int, ...]
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    report: DataReport

    def __len__(self) -> int:
        return len(self.rows)

    def table(self, weights: Sequence[float] | None = None) -> RewardTable:
        """The ratings as rewards.

        Args:
            weights: one for each attribute; None = 1 each.
        """
        import torch

        from align.types import RewardTable

        given = [1.0] * len(self.names) if weights is None else list(weights)
        if len(given) != len(self.names):
            raise AlignError(
                f"expected a weight for each of {', '.join(self.names)}, found {len(given)}.",
                "Give one weight for each attribute; 0 leaves one out.",
            )
        values = torch.tensor(self.values, dtype=torch.float32).reshape(len(self), len(self.names))
        return RewardTable(names=self.names, values=values, weights=torch.tensor(given, dtype=torch.float32))


@dataclass(frozen=True)
class _Rated:
    """One answer with its ratings by name."""

    row: TextRow
    ratings: Mapping[str, float]


def read_ratings(
    source: str, *, attributes: Sequence[str] | None = None, split: str = "train", bad_rows: BadRows = "error"
) -> RatedTexts:
    """The rated answers of a source.

    Args:
        source: file, folder or hub id.
        attributes: which ratings; None = all: every column of numbers, or every annotation.
        split: taken where the source has several.
        bad_rows: stop at rows that cannot be used, or leave them out.

    Raises:
        AlignError: no such source, unknown columns or attributes, bad rows (with their places).
    """
    table = open_table(source, split=split)
    prompt = _column(table, PROMPTS)
    nested = "completions" in table.columns
    names = None if nested else _number_columns(table, attributes)
    found: list[_Rated] = []
    bad: list[str] = []
    for number, row in enumerate(table.rows):
        try:
            if isinstance(row, str):
                raise Unusable(row)
            found += _of_completions(row, prompt) if nested else [_of_columns(row, prompt, table, names or ())]
        except Unusable as problem:
            bad.append(f"{table.place(number)}: {problem}")
    if bad and bad_rows == "error":
        raise bad_rows_error(table.source, bad)
    if not found:
        raise AlignError(f"{table.source} has no rated answer.", "Repair the file.")
    return _together(table, found, attributes, bad)


def _together(table: Table, found: list[_Rated], attributes: Sequence[str] | None, bad: list[str]) -> RatedTexts:
    known = tuple(dict.fromkeys(name for answer in found for name in answer.ratings))
    names = known if attributes is None else tuple(attributes)
    for name in names:
        if name not in known:
            there = known if "completions" in table.columns else _number_columns(table, None)
            raise AlignError(
                f"{table.source} has no ratings of `{name}`.{did_you_mean(name, there)}",
                f"It rates {', '.join(there) or 'nothing'}.",
            )
    ids: dict[str, int] = {}
    keys = [json.dumps(answer.row.prompt, sort_keys=True, default=str) for answer in found]
    return RatedTexts(
        rows=tuple(answer.row for answer in found),
        group_ids=tuple(ids.setdefault(key, len(ids)) for key in keys),
        names=names,
        values=tuple(tuple(answer.ratings.get(name, math.nan) for name in names) for answer in found),
        report=DataReport(
            source=table.source,
            read=len(table),
            used=len(table) - len(bad),
            dropped={"not usable": len(bad)} if bad else {},
            notes={"answers": len(found)},
            examples=tuple(bad[:SHOWN]),
        ),
    )


def _column(table: Table, names: Sequence[str]) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        raise AlignError(
            f"{table.source}: expected a column {' or '.join(names)}, found {', '.join(table.columns) or 'none'}.",
            "Rename the column.",
        )
    return found


def _number_columns(table: Table, attributes: Sequence[str] | None) -> tuple[str, ...]:
    """The named columns, or all that hold nothing but numbers."""
    if attributes is not None:
        return tuple(name for name in attributes if name in table.columns)
    rows = [row for row in table.rows if not isinstance(row, str)]
    given = {name: [row[name] for row in rows if row.get(name) is not None] for name in table.columns}
    return tuple(name for name, values in given.items() if values and all(_is_number(value) for value in values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_columns(row: Mapping[str, Any], prompt: str, table: Table, names: Sequence[str]) -> _Rated:
    response = _column(table, RESPONSES)
    for name in (prompt, response):
        if row.get(name) is None:
            raise Unusable(f"`{name}` is missing")
    ratings = {name: _rating(row.get(name), name) for name in names}
    return _Rated(normalise(row[prompt], [row[response]], [response], row), ratings)


def _of_completions(row: Mapping[str, Any], prompt: str) -> Iterator[_Rated]:
    completions = row.get("completions")
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise Unusable(f"`completions` must be a list, found {completions!r:.40}")
    if row.get(prompt) is None:
        raise Unusable(f"`{prompt}` is missing")
    for i, completion in enumerate(completions):
        if not isinstance(completion, Mapping) or not isinstance(completion.get("annotations"), Mapping):
            raise Unusable(f"`completions[{i}]` must be an object with `response` and `annotations`")
        name = f"completions[{i}].response"
        ratings = {
            attribute: _rating(given.get("Rating") if isinstance(given, Mapping) else given, attribute)
            for attribute, given in completion["annotations"].items()
        }
        yield _Rated(normalise(row[prompt], [completion.get("response")], [name], {}), ratings)


def _rating(value: Any, name: str) -> float:
    """A number, also as text; nothing and N/A are NaN."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "n/a")):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unusable(f"`{name}` must be a number, found {value!r:.40}") from error
