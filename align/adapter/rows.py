"""A file of scored responses -> prompts and one reward per objective. Torch-free.

| what a row holds | as in |
|---|---|
| `prompt`, and `chosen_rewards`: objective -> number (`rejected_rewards` alike) | pairs made from scored candidates |
| `prompt`, and `<objective>_chosen` (`<objective>_rejected`) | pairs of `align pairs` |
| `prompt`, and `chosen_<objective>` (`rejected_<objective>`) | the same as plain columns |
| `prompt`, and `rewards`: objective -> number | a scored file that holds preferred responses only |
| `prompt`, and a column `<objective>`, or `rewards/<objective>` | the same as plain columns |

A number that is missing (absent, null, NaN) is an objective that this row says nothing about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError

PROMPTS = ("prompt", "instruction", "question")
ENDINGS = (".jsonl", ".parquet")
SHOWN = 3

Row = Mapping[str, Any]  # Any: a user's data
Finder = Callable[[Row, str], Any]


@dataclass(frozen=True, kw_only=True)
class PreferredRows:
    """Prompts with the rewards of their responses; NaN = not scored.

    Attributes:
        prompts: one text per row; a conversation is the texts of its turns.
        preferred: per row one reward for each objective.
        rejected: the same of the response that was not preferred; None where the file has none.
    """

    prompts: tuple[str, ...]
    preferred: tuple[tuple[float, ...], ...]
    rejected: tuple[tuple[float, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Sequence[int]) -> PreferredRows:
        """These rows, in this order."""
        return PreferredRows(
            prompts=tuple(self.prompts[row] for row in rows),
            preferred=tuple(self.preferred[row] for row in rows),
            rejected=None if self.rejected is None else tuple(self.rejected[row] for row in rows),
        )


def prompt_text(prompt: Any) -> str | None:
    """The text of a prompt: itself, or the contents of a conversation's turns, one after the other; None if neither."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence) and prompt and all(isinstance(turn, Mapping) for turn in prompt):
        texts = [turn.get("content") for turn in prompt]
        return "\n".join(texts) if all(isinstance(text, str) for text in texts) else None  # type: ignore[arg-type]
    return None


def _within(mapping: str) -> Finder:
    """objective -> number inside a column that holds a mapping."""
    return lambda row, name: found.get(name) if isinstance(found := row.get(mapping), Mapping) else None


def _around(before: str = "", after: str = "") -> Finder:
    return lambda row, name: row.get(f"{before}{name}{after}")


CHOSEN: tuple[Finder, ...] = (
    _within("chosen_rewards"),
    _around(after="_chosen"),
    _around("chosen_"),
    _within("rewards"),
    _around("rewards/"),
    _around(),
)
REJECTED: tuple[Finder, ...] = (_within("rejected_rewards"), _around(after="_rejected"), _around("rejected_"))


def read_rows(source: str, objectives: Sequence[str], *, rejected: bool = False) -> PreferredRows:
    """The rows of a file.

    Args:
        source: a JSONL or Parquet file.
        objectives: which rewards.
        rejected: the rejected responses' rewards are wanted, too.

    Raises:
        AlignError: no such file, a row that cannot be read, or rewards that are not there; says where and what to do.
    """
    path = Path(source).expanduser()
    numbered = list(_open(path))
    if not numbered:
        raise AlignError(f"{path} has no rows.", "Write one object a line, with a prompt and rewards.")
    prompt = next((name for name in PROMPTS if name in numbered[0][1]), None)
    if prompt is None:
        raise AlignError(
            f"{path}: expected a column {' or '.join(PROMPTS)}, found {', '.join(numbered[0][1]) or 'none'}.",
            "Rename the column.",
        )
    better = _finder(path, numbered, objectives, CHOSEN, "the preferred response")
    worse = _finder(path, numbered, objectives, REJECTED, "the rejected response") if rejected else None
    bad: list[str] = []
    texts, chosen, others = [], [], []
    for place, row in numbered:
        text = prompt_text(row.get(prompt))
        try:
            scores = _numbers(row, objectives, better)
            other = None if worse is None else _numbers(row, objectives, worse)
        except ValueError as error:
            bad.append(f"{place}: {error}")
            continue
        if text is None or not text.strip():
            bad.append(f"{place}: `{prompt}` must be a text or a list of turns, found {row.get(prompt)!r:.40}")
        elif _says_something(scores, other):
            texts.append(text)
            chosen.append(scores)
            others.append(other)
        else:
            bad.append(f"{place}: no objective is scored")
    if bad:
        more = f" (and {len(bad) - SHOWN} more)" if len(bad) > SHOWN else ""
        raise AlignError(f"rows that cannot be used: {'; '.join(bad[:SHOWN])}{more}.", "Repair or remove these rows.")
    return PreferredRows(
        prompts=tuple(texts), preferred=tuple(chosen), rejected=None if worse is None else tuple(others)
    )


def _open(path: Path) -> Iterator[tuple[str, Row]]:
    """Place and content of each row."""
    if not path.is_file() or path.suffix.lower() not in ENDINGS:
        found = "no such file" if not path.is_file() else f"a file ending in {path.suffix or 'nothing'}"
        raise AlignError(f"expected a file ending in {' or '.join(ENDINGS)} at {path}, found {found}.", "Give one.")
    yield from _parquet(path) if path.suffix.lower() == ".parquet" else _jsonl(path)


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise AlignError(f"{path}:{number}: not valid JSON: {error.msg}.", "One object a line.") from error
        if not isinstance(row, dict):
            raise AlignError(f"{path}:{number}: expected an object, found {line.strip()[:40]}.", "One object a line.")
        yield f"{path}:{number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as parquet  # comes with the `datasets` library

    for number, row in enumerate(parquet.read_table(path).to_pylist()):
        yield f"{path}, row {number}", row


def _finder(
    path: Path, rows: Sequence[tuple[str, Row]], objectives: Sequence[str], finders: Sequence[Finder], what: str
) -> Finder:
    """The first way that finds every objective in some row; one way holds for the whole file."""
    for finder in finders:
        if all(any(finder(row, name) is not None for _, row in rows) for name in objectives):
            return finder
    columns = ", ".join(rows[0][1])
    raise AlignError(
        f"{path} has no rewards of {what} for all of {', '.join(objectives)}; its columns are {columns}.",
        "docs/pro_adapter.md lists the columns that are understood; `objectives` names them.",
    )


def _numbers(row: Row, objectives: Sequence[str], finder: Finder) -> tuple[float, ...]:
    return tuple(_number(finder(row, name), name) for name in objectives)


def _number(value: Any, name: str) -> float:
    """Infinities are no scores."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the reward `{name}` must be a number, found {value!r:.40}")
    return float(value) if math.isfinite(value) else math.nan


def _says_something(scores: Sequence[float], other: Sequence[float] | None) -> bool:
    pairs = zip(scores, scores if other is None else other, strict=True)
    return any(not math.isnan(a) and not math.isnan(b) for a, b in pairs)
