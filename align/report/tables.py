"""A page of findings, tables and samples: the object, its text for a terminal, its HTML, its JSON.

For commands that look at rewards (`align audit`, `align replay`, `align sweep`). The looks are those of the run report.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.report import words

if TYPE_CHECKING:
    from rich.console import Console

SIDE = 160  # pixels of a sample's picture


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of texts.

    Attributes:
        title: what it shows.
        note: how to read it, one or two sentences.
        columns: headings; all but the first are set to the right.
        rows: one cell a column.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A titled picture of numbers.

    Attributes:
        title: what it shows.
        note: how to read it.
        svg: the picture, made by us: it goes into the page as it is.
        legend: (number of the series' colour from 1, its name).
    """

    title: str
    note: str
    svg: str
    legend: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample that a person can look at.

    Attributes:
        prompt: its prompt.
        caption: its numbers, one line.
        picture: file of its picture, if it was kept.
        text: what the model answered, if it is text.
    """

    prompt: str
    caption: str
    picture: Path | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a command has found.

    Attributes:
        title: in one line.
        lead: what was looked at, a sentence or two.
        findings: what to do, one sentence each.
        tables: the numbers.
        samples: title -> samples.
        record: the numbers as JSON holds them (Any: nested plain data).
        charts: pictures of the numbers, above the tables.
        heading: of the findings.
    """

    title: str
    lead: str
    findings: Sequence[str]
    tables: Sequence[Table]
    record: Mapping[str, Any]
    samples: Mapping[str, Sequence[Shown]]
    charts: Sequence[Chart] = ()
    heading: str = "What to do"


def write_page(page: Page, folder: Path, name: str) -> Path:
    """Write `<name>.json` and `<name>.html` into a folder, which is made; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"title": page.title, "lead": page.lead, "findings": list(page.findings), **page.record}
    _replace(folder / f"{name}.json", json.dumps(json_safe(record), indent=1, ensure_ascii=False, allow_nan=False))
    target = folder / f"{name}.html"
    _replace(target, render(page))
    return target


def render(page: Page) -> str:
    """The page as one HTML text without any outside resource."""
    import jinja2

    from align.report.grids import data_uri

    folder = resources.files("align.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((folder / "tables.html.jinja").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    shown = {
        title: [(one, None if one.picture is None else data_uri(one.picture, SIDE)) for one in samples]
        for title, samples in page.samples.items()
        if samples
    }
    return template.render(style=style, page=page, shown=shown, words=words).lstrip()


def print_page(page: Page, console: Console) -> None:
    """Findings and tables in a terminal; samples are for the page."""
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(page.title, style="bold"))
    console.print(Text(page.lead))  # Text: square brackets in a prompt are no markup
    for table in page.tables:
        drawn = RichTable(title=Text(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, name in enumerate(table.columns):
            drawn.add_column(Text(name), justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        console.print()
        console.print(drawn, highlight=False)
    console.print()
    console.print(Text(page.heading if page.findings else "Nothing stands out.", style="bold"))
    for finding in page.findings:
        console.print(Text(f"* {finding}"))


def number(value: float) -> str:
    """Two decimals of a correlation or a share, signed; a dash for a missing one."""
    return f"{value:+.2f}" if math.isfinite(value) else _odd(value)


def share(value: float) -> str:
    """A share as a percentage without decimals; a dash for a missing one."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else _odd(value)


def factor(value: float) -> str:
    """One decimal; infinity is a value here."""
    return f"{value:.1f}" if math.isfinite(value) else _odd(value)


def json_safe(value: Any) -> Any:
    """Plain data without NaN and infinity, which JSON does not have: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(entry) for entry in value]
    return value


def _odd(value: float) -> str:
    return words.DASH if math.isnan(value) else ("∞" if value > 0 else "-∞")


def _replace(path: Path, text: str) -> None:
    """Write in one go, so that a command killed here leaves no half of a file."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
