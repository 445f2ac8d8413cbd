"""The table and the figure of docs/advantages.md, made from what the estimators declare.

    python -m align.inspect.estimators docs/advantages.md docs/images/advantages.png

What an estimator does and when to use it is the docstring of its settings; formula and source are those of its code;
what it needs is its declaration. Nothing is written twice.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from align.advantages import available
from align.advantages.registry import Estimator, find, make_options
from align.inspect.estimators_figure import STAGES, figure

FORMULAS = tuple(re.compile(rf"(?<![\w|]){letter}'?(hat)?(_\w+)?(\([^)]*\))?'?\s*(=|<-)") for letter in "AG")
"""Lines of a docstring that say what an advantage is; where there is none, what a return is."""
REFERENCES = re.compile(r"References:\n((?:    .*\n?|\n)+)")
USE = "Use it "
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True, kw_only=True)
class Description:
    """A row of the table."""

    kind: str
    stage: str
    what: str
    formula: str
    needs: str
    use: str
    scope: str
    source: str


def describe(kind: str) -> Description:
    """What an estimator says about itself.

    Raises:
        ValueError: it does not say when to use it, its formula, or its source.
    """
    entry = find(kind)
    settings = inspect.getdoc(entry.options_type) or ""
    first, _, rest = settings.partition("\n\n")
    code = [inspect.getdoc(entry.function) or "", inspect.getdoc(sys.modules[entry.function.__module__]) or ""]
    lines = [line.strip() for text in code for line in text.splitlines() if line.startswith("    ")]
    found = {
        "when to use it (a paragraph `Use it ...` in the docstring of its settings)": _one_line(rest).partition(USE)[2],
        "its formula (an indented line `A = ...` in its docstring)": _formula(lines),
        "its source (`References:`)": next((m[1] for m in map(REFERENCES.search, code) if m), ""),
    }
    missing = [what for what, text in found.items() if not text.strip()]
    if missing:
        raise ValueError(f"the estimator {kind} does not say {' or '.join(missing)}.")
    use, formula, source = found.values()
    return Description(
        kind=kind,
        stage=entry.stage,
        what=_what(_one_line(first)),
        formula=formula,
        needs=_needs(entry),
        use=use,
        scope=_scope(entry),
        source=_linked(_one_line(source)),
    )


def _what(first: str) -> str:
    """The first sentence, and how sure the form is where the sentence behind it says so."""
    sentence = re.split(r"\.(?: |$)", first)[0]
    doubt = re.search(r"\((reconstruction|second-hand)\)", first.removeprefix(sentence))
    return f"{sentence} {doubt[0]}" if doubt else sentence


def _formula(lines: list[str]) -> str:
    """The first one or two lines that say what the advantage is; explanations stand apart by spaces."""
    found = next((list(found) for found in ([x for x in lines if f.search(x)] for f in FORMULAS) if found), [])
    return "; ".join(re.sub(r"\s{3,}", "   ", re.sub(r"\s+(=|<-)", r" \1", line, count=1)) for line in found[:2])


def _needs(entry: Estimator) -> str:
    """Fields that must be given, fields of which one must be, and those that may be."""
    shapes = ("advantages",) if entry.stage == "shaper" else ()
    needs = [f"`{name}`" for name in entry.needs(make_options(entry, {})) if name not in shapes]
    needs += [" or ".join(f"`{name}`" for name in names) for names in entry.requires_any]
    if entry.optional:
        needs.append(f"(may have {', '.join(f'`{name}`' for name in entry.optional)})")
    return ", ".join(needs).replace(", (", " (") or "nothing else"


def _scope(entry: Estimator) -> str:
    scope = entry.scope_of(make_options(entry, {}))
    return f"{scope}{' (by option)' if callable(entry.scope) else ''}{', keeps statistics' if entry.stateful else ''}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _linked(source: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)


def table() -> str:
    """All estimators as one Markdown table: bases (whole samples, then credit over time), shapers, the rest."""
    rows = [describe(kind) for kind in available()]
    rows.sort(key=lambda row: (STAGES.index(row.stage), find(row.kind).granularity, row.kind))
    lines = [
        "| kind | stage | what it does | formula | needs, beside rewards | use it | scope | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        unit = f"{row.stage}, per {find(row.kind).granularity}"
        cells = (row.what, f"`{row.formula}`", row.needs, row.use, row.scope, row.source)
        lines.append(" | ".join([f"| `{row.kind}`", unit, *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with a fresh table between its two marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the two lines `{BEGIN}` and `{END}`, around the place of the table.")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Write the table into a page and, if a second path is given, the figure."""
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    page = Path(arguments[0])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    if len(arguments) == 2:
        figure(Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
