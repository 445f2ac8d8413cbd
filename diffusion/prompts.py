"""Prompt files -> rows. Torch-free: `align plan` counts prompts before anything heavy is imported.

* `.txt`: one prompt a line.
* `.jsonl`: one JSON object a line with the key `prompt`; all other keys become columns, which rewards receive as
  keyword arguments.
* `builtin:tiny/train`, `builtin:tiny/heldout`: the captions of the embedded model; `builtin:ocr/train` and others: the
  small sets of `diffusion/prompt_sets`.

UTF-8, with or without a byte-order mark. Blank lines are skipped and white space around a prompt is dropped;
repeated prompts stay, each a row of its own. A key that only some rows have is None in the others: optional
annotations are common, and a reward can skip them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import AlignError
from diffusion.prompt_sets import SETS, SPLITS, set_path
from diffusion.tiny import prompts_path

BUILTIN: dict[str, Path] = {
    **{f"builtin:tiny/{split}": prompts_path(split) for split in SPLITS},
    **{f"builtin:{name}/{split}": set_path(name, split) for name in SETS for split in SPLITS},
}
"""Prompt sets that come with the suite, and their files."""

RESERVED = ("prompts", "images", "completions")
"""Keyword arguments that every reward receives already."""

_SHOWN = 5
"""Bad rows that an error lists; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts and their columns, in the order of the file. A prompt's position is its integer id.

    Attributes:
        prompts: one text a row.
        columns: further columns, one entry a row (Any: the user's own data).
    """

    prompts: tuple[str, ...]
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Sequence[int]) -> PromptSet:
        """The rows at these positions, in that order; a position may repeat."""
        return PromptSet(
            prompts=tuple(self.prompts[i] for i in rows),
            columns={name: tuple(values[i] for i in rows) for name, values in self.columns.items()},
        )


def read_prompts(source: str, folder: Path | None = None) -> PromptSet:
    """Reads a prompt file or a built-in set.

    Args:
        source: a path ending in .txt or .jsonl, or a name in `BUILTIN`.
        folder: what a relative path starts from; None is the working directory.

    Raises:
        AlignError: no such file, an unknown ending, bad rows (with file and line), or no prompt at all.
    """
    path = locate(source, folder)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise AlignError(
            f"{path}: expected a prompt file ending in {' or '.join(sorted(_READERS))}, "
            f"found {path.suffix or 'no ending'!r}.",
            "Rename it, or write one prompt a line into a .txt file.",
        )
    rows, problems = reader(path, _lines(path))
    if problems:
        raise _bad_rows(path, problems)
    if not rows:
        raise AlignError(f"{path} has no prompts: expected at least one, found none.", "Add one prompt a line.")
    return _columns(rows)


def locate(source: str, folder: Path | None = None) -> Path:
    """Path of a prompt source that exists.

    Raises:
        AlignError: unknown built-in name, or no such file.
    """
    if source.startswith("builtin:"):
        if source not in BUILTIN:
            raise AlignError(f"expected a built-in prompt set, found {source!r}.", f"Known: {', '.join(BUILTIN)}.")
        path = BUILTIN[source]
    else:
        path = (folder or Path()) / Path(source).expanduser()
    if not path.is_file():
        raise AlignError(f"expected a prompt file at {path}, found {_found_instead(path)}.", _near(path))
    return path


def _found_instead(path: Path) -> str:
    return "a folder" if path.is_dir() else "nothing"


def _near(path: Path) -> str:
    names = [p.name for p in path.parent.iterdir() if p.suffix.lower() in _READERS] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"Did you mean {path.parent / close[0]}? " if close else ""
    return f"{hint}Give a .txt or .jsonl file, or one of {', '.join(BUILTIN)}."


Row = dict[str, Any]  # Any: the user's own data
Problem = tuple[int, str]  # line number, what is wrong


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AlignError(
            f"{path}: expected UTF-8 text, found a byte that is not ({error.reason} at byte {error.start}).",
            "Save the file as UTF-8.",
        ) from error
    # Split at newlines only: str.splitlines would also split at characters that captions may hold (U+2028 ...).
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _read_text(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[list[Row], list[Problem]]:
    return [{"prompt": line} for _, line in lines], []


def _read_jsonl(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[list[Row], list[Problem]]:
    rows, problems = [], []
    for number, line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append((number, f"not valid JSON: {error.msg} at column {error.colno}"))
            continue
        problem = _problem_of(row)
        if problem:
            problems.append((number, problem))
        else:
            rows.append({**row, "prompt": row["prompt"].strip()})
    return rows, problems


_READERS: dict[str, Callable[[Path, Iterator[tuple[int, str]]], tuple[list[Row], list[Problem]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
}


def _problem_of(row: object) -> str:
    """What is wrong with a parsed line; empty if nothing is."""
    if not isinstance(row, dict):
        return f'expected an object {{"prompt": ...}}, found {json.dumps(row)[:40]}'
    taken = [name for name in RESERVED if name in row]
    if taken:
        return f"key {taken[0]!r} is reserved: rewards receive an argument of that name already; rename it"
    if "prompt" not in row:
        close = difflib.get_close_matches("prompt", row, n=1, cutoff=0.5)
        return f"no key 'prompt', found {sorted(row)}" + (f"; did you mean {close[0]!r}?" if close else "")
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        return f"'prompt' must be a text, found {json.dumps(prompt)[:40]}"
    return "" if prompt.strip() else "'prompt' is empty"


def _bad_rows(path: Path, problems: Sequence[Problem]) -> AlignError:
    shown = [f"{path}:{number}: {problem}" for number, problem in problems[:_SHOWN]]
    more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    rows = "1 row that is" if len(problems) == 1 else f"{len(problems)} rows that are"
    return AlignError(
        "\n".join([f"{path} has {rows} not usable; every row needs a caption:", *shown, *more]),
        "Each line must be a JSON object with a non-empty text under `prompt`. Repair or delete these lines.",
    )


def _columns(rows: Sequence[Row]) -> PromptSet:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "prompt"))
    return PromptSet(
        prompts=tuple(row["prompt"] for row in rows),
        columns={name: tuple(row.get(name) for row in rows) for name in names},
    )
