"""What a run is going to do, in numbers a person can check: the object, its text, its JSON. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from align.config import shipped
from align.config.document import KeyPath, dotted
from align.config.load import load_config, to_plain

if TYPE_CHECKING:
    from rich.console import Console

NOT_COMPARED = ("recipe", "output.", "branch")
"""Keys that differ between any two runs and say nothing about the method."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: what it is, its value with unit, how it comes about."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled table."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that departs from the published recipe."""

    key: str
    recipe: str
    ours: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is going to do.

    Attributes:
        title: the run in one line.
        sections: tables of numbers.
        recipe: name of the shipped recipe that it is compared with, or None.
        differences: where the run departs from it.
    """

    title: str
    sections: tuple[Section, ...]
    recipe: str | None = None
    differences: tuple[Difference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `plan.json` of a run folder holds it."""
        return {
            "title": self.title,
            "sections": [
                {"title": section.title, "rows": [[row.label, row.value, row.note] for row in section.rows]}
                for section in self.sections
            ],
            "recipe": self.recipe,
            "differences": [[item.key, item.recipe, item.ours] for item in self.differences],
        }


def differences_from(config: Any, recipe: str) -> tuple[Difference, ...]:
    """Every setting in which `config` departs from a shipped config; key by key, lists entry by entry.

    Args:
        config: a root dataclass.
        recipe: name of a shipped config.
    """
    theirs = to_plain(load_config(shipped.get(recipe), check=False))
    found = _compare(theirs, to_plain(config), ())
    return tuple(item for item in found if not item.key.startswith(NOT_COMPARED))


_ABSENT = object()


def _compare(recipe: Any, ours: Any, path: KeyPath) -> Iterator[Difference]:
    """Differences of two pieces of plain data. A section that only one side has is one difference."""
    if recipe == ours:
        return
    if isinstance(recipe, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*ours, *recipe]):
            yield from _compare(recipe.get(key, _ABSENT), ours.get(key, _ABSENT), (*path, key))
    elif isinstance(recipe, list) and isinstance(ours, list):
        for index, (theirs, mine) in enumerate(zip_longest(recipe, ours, fillvalue=_ABSENT)):
            yield from _compare(theirs, mine, (*path, index))
    else:
        yield Difference(key=dotted(path), recipe=_text(recipe), ours=_text(ours))


def _text(value: Any) -> str:
    """A value as YAML would write it on one line; a dash where the setting does not exist."""
    if value is _ABSENT:
        return "–"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_plan(plan: Plan, console: Console) -> None:
    """Write a plan to a terminal, or to anything else that a rich console writes to."""
    from rich.markup import escape
    from rich.table import Table

    console.print(f"\n[bold]{escape(plan.title)}[/bold]", highlight=False)
    for section in plan.sections:
        _print_table(console, section.title, [(row.label, row.value, row.note) for row in section.rows])
    if plan.recipe is None:
        return
    if not plan.differences:
        console.print(f"\nNo setting differs from the recipe [bold]{escape(plan.recipe)}[/bold].", highlight=False)
        return
    table = Table("setting", "recipe", "this run", title=f"differences from the recipe {escape(plan.recipe)}")
    table.title_justify, table.box, table.pad_edge, table.title_style = "left", None, False, "bold"
    for item in plan.differences:
        table.add_row(escape(item.key), escape(item.recipe), escape(item.ours))
    console.print()
    console.print(table, highlight=False)


def _print_table(console: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(title), box=None, show_header=False, pad_edge=False, title_justify="left", title_style="bold"
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for label, value, note in rows:
        table.add_row(f"  {escape(label)}", escape(value), escape(note))
    console.print()
    console.print(table, highlight=False)
