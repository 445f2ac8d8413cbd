"""The table and the figure of docs/advantages.md, made from what the estimators declare.

    python -m align.inspect.estimators docs/advantages.md docs/images/advantages.png

What an estimator does and when to use it is the docstring of its settings; formula and source are those of its code;
what it needs is its declaration. Nothing is written twice.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import Estimator, find, make_options

FORMULAS = tuple(re.compile(rf"(?<![\w|]){letter}'?(hat)?(_\w+)?(\([^)]*\))?'?\s*(=|<-)") for letter in "AG")
"""Lines of a docstring that say what an advantage is; where there is none, what a return is."""
REFERENCES = re.compile(r"References:\n((?:    .*\n?|\n)+)")
USE = "Use it "
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
STAGES = ("base", "shaper", "loss", "rollout")
REWARDS = ((1.0, 0.0, 0.0, 0.0), (0.70, 0.72, 0.74, 0.90), (0.50, 0.50, 0.50, 0.50))
"""Three groups of the figure: one success, a continuous score with an outlier, all equal."""
TITLES = ("one success", "continuous, one outlier", "all equal")


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


def example() -> AdvantageInputs:
    """Three groups of four samples, with everything that an estimator of whole samples may ask for.

    Lengths, metric, likelihoods and rank features differ within a group in the same way in all three.
    """
    rewards = torch.tensor(REWARDS).flatten()
    place = torch.arange(4).repeat(3)
    lengths = torch.tensor([4, 6, 8, 2])[place]
    mask = (torch.arange(8) < lengths.unsqueeze(1)).long()
    return AdvantageInputs(
        rewards=rewards,
        group_ids=torch.arange(3).repeat_interleave(4),
        lengths=lengths,
        mask=mask,
        metric=torch.tensor([0.1, 0.4, 0.2, 0.3])[place],
        answers=list("abbc" * 3),
        correct=(rewards >= 0.9),
        greedy_rewards=torch.full((12,), 0.5),
        reference_rewards=torch.full((12,), 0.5),
        first_tool_pos=torch.tensor([1, 2, 0, -1])[place],
        rank_features=torch.tensor([[1.0, 0.2, 0.1], [2.0, 0.1, 0.0], [3.0, 0.3, 0.2], [4.0, 0.0, 0.1]])[place],
        logprobs=-0.5 * (1 + place.double()).unsqueeze(1) * mask,
    )


def compared_samples() -> Iterator[tuple[str, Tensor]]:
    """Kind and advantages, for every estimator that gives one number per sample."""
    inputs = example()
    for stage in STAGES:
        for kind in available():
            if find(kind).stage == stage and find(kind).granularity == "sample":
                yield kind, estimate(kind, inputs).advantages


def figure(path: Path) -> None:
    """All estimators of whole samples on the same three groups: a row each, a number and a colour per sample.

    Purple is pushed up and orange is pushed down, each row in its own unit: colours compare within a row.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import TwoSlopeNorm

    rows = list(compared_samples())
    groups, size = len(REWARDS), len(REWARDS[0])
    plot, axes = pyplot.subplots(figsize=(10, 0.34 * len(rows) + 1.7))
    colours = torch.stack([values / values.abs().max().clamp(min=1e-12) for _, values in rows])
    axes.imshow(colours.numpy(), cmap="PuOr", norm=TwoSlopeNorm(0, -1.6, 1.6), aspect="auto")
    for y, (_, values) in enumerate(rows):
        for x, value in enumerate(values.tolist()):
            ink = "white" if colours[y, x] > 0.7 else "black"
            axes.text(x, y, "0" if value == 0 else f"{value:+.2f}", ha="center", va="center", fontsize=8, color=ink)
    rewards = [f"{reward:.2f}" for group in REWARDS for reward in group]
    axes.set_xticks(range(groups * size), rewards)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [kind for kind, _ in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for number, title in enumerate(TITLES):
        middle = number * size + (size - 1) / 2
        axes.annotate(title, (middle, 1), xycoords=("data", "axes fraction"), xytext=(0, 24),
                      textcoords="offset points", ha="center", weight="bold")  # fmt: skip
        if number:
            axes.axvline(number * size - 0.5, color="white", linewidth=6)
    axes.set_xlabel("advantage of each sample (columns: its reward); colours are scaled within a row")
    plot.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(plot)


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
