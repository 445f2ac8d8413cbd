"""`align sweep`: from the command's arguments to the page and its files. No formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.config.checks import reward_name
from align.errors import AlignError, did_you_mean
from align.inspect.sweep.frame import ends_of, made_frame
from align.inspect.sweep.measures import measure
from align.inspect.sweep.page import sweep_page
from align.inspect.sweep.record import Found, as_csv
from align.inspect.sweep.sources import Objective, Read, Source, read_source
from align.inspect.sweep.systems import made_sweep
from align.report.tables import Page, write_page
from align.shaping.pareto import MOST_OBJECTIVES


def parse_sources(texts: Sequence[str]) -> tuple[str | None, list[Source]]:
    """`CONFIG` and `NAME=RUN[,RUN...]` apart: the config, if there is one, and the runs.

    Raises:
        AlignError: a name or run that is empty, or two configs.
    """
    config, sources = None, []
    for text in texts:
        name, equals, runs = text.partition("=")
        if not equals:
            if config is not None:
                raise AlignError(
                    f"expected one config and any number of NAME=RUN, found `{config}` and `{text}`.",
                    "Give finished runs a name: dpa=runs/dpa-001.",
                )
            config = text
            continue
        folders = [part.strip() for part in runs.split(",")]
        if not name.strip() or not all(folders):
            raise AlignError(f"expected NAME=RUN[,RUN...], found `{text}`.", "For example soup=runs/half,runs/third.")
        sources += [Source(system=name.strip(), run=Path(folder).expanduser()) for folder in folders]
    return config, sources


def check_first(configs: Sequence[Any], objectives: Sequence[Objective], **ends: Mapping[str, float] | None) -> None:
    """Refuse before anything is trained what would be refused afterwards.

    Args:
        configs: root dataclasses of what will be trained (hence `Any`).
        objectives: what will be looked at.
        ends: `reference` and `high`.

    Raises:
        AlignError: an objective that no reward of a config is called, or ends of the box that do not fit.
    """
    for option, given in ends.items():
        ends_of(objectives, given, f"--{option}")
    for config in configs:
        evaluation = getattr(config, "evaluation", None)
        rewards = (*getattr(config, "rewards", ()), *getattr(evaluation, "rewards", ()))
        names = [reward_name(reward) for reward in rewards]
        for one in objectives:
            if one.reward not in names:
                raise AlignError(
                    f"no reward of the config is called `{one.reward}`.{did_you_mean(one.reward, names)}",
                    f"Its rewards are {', '.join(names) or 'none'}; a reward of weight 0 is evaluated, too.",
                )


def find_trade_offs(
    sources: Sequence[Source],
    objectives: Sequence[Objective],
    *,
    reference: Mapping[str, float] | None = None,
    high: Mapping[str, float] | None = None,
    step: int | None = None,
    resamples: int = 1000,
) -> Found:
    """Read, bring together, measure.

    Args:
        sources: runs of all systems.
        objectives: two to six.
        reference: low ends of the box; None takes them from the model before training.
        high: high ends of the box; None likewise.
        step: of the evaluations; None takes the last of each run.
        resamples: behind each interval.

    Raises:
        AlignError: nothing to compare, or points that may not be compared.
    """
    if not sources:
        raise AlignError("there is no run to look at.", "Give NAME=RUN[,RUN...], or a config and --try.")
    if len(objectives) > MOST_OBJECTIVES:
        raise AlignError(
            f"expected at most {MOST_OBJECTIVES} objectives, found {len(objectives)}.", "Choose the ones that matter."
        )
    read = [read_source(source, objectives, step) for source in sources]
    base = next((one.base for one in read if one.base), ())
    sweep = made_sweep(objectives, [point for one in read for point in one.points], base)
    frame = made_frame(objectives, base, reference, high)
    notes = [*dict.fromkeys(note for one in read for note in one.notes), *_disagreements(sources, read)]
    return Found(sweep=sweep, frame=frame, results=measure(sweep, frame, resamples=resamples), notes=notes)


def write_sweep(found: Found, folder: Path) -> tuple[Page, Path]:
    """Write `sweep.html`, `sweep.json` and `sweep.csv`; returns the page and its file."""
    page = sweep_page(found)
    written = write_page(page, folder, "sweep")
    (folder / "sweep.csv").write_text(as_csv(found), encoding="utf-8")
    return page, written


def _disagreements(sources: Sequence[Source], read: Sequence[Read]) -> list[str]:
    """Settings that make samples or rewards of two runs different things, a sentence each."""
    found = []
    for what, part in (("sampling", "sampling"), ("reward", "functions")):
        first: dict[str, tuple[object, Path]] = {}
        for source, one in zip(sources, read, strict=True):
            for key, value in getattr(one, part).items():
                known, run = first.setdefault(key, (value, source.run))
                if known != value:
                    found.append(f"Not the same {what}: `{key}` is {known} in {run} and {value} in {source.run}.")
    return found
