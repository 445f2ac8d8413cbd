"""The report for the terminal: `align report RUN` prints what a person asks for first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.report import words
from align.report.gains import Gain
from align.report.parity import ParityRow, parity_rows
from align.report.read import read_run
from align.report.summary import Summary, is_about_texts, sentences, summarise

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_report(run_folder: Path | str, console: Console | None = None) -> Summary:
    """Print reward, held-out gains per class of prompts, time per stage and problems of a run folder.

    Args:
        run_folder: finished, killed or still running.
        console: where to print; None is standard output.

    Returns:
        The numbers that were printed.

    Raises:
        FileNotFoundError: the folder is not a run folder.
    """
    from rich.console import Console
    from rich.text import Text

    run = read_run(run_folder)
    summary = summarise(run)
    console = console or Console()
    console.print(Text(summary.title, style="bold"))
    console.print(Text(" ".join(sentences(run, summary))))  # Text: square brackets in a prompt are no markup
    if summary.headline and all(math.isfinite(value) for value in summary.reward):
        first, last = summary.reward
        console.print(f"Training reward: {words.number(first)} in the first step, {words.number(last)} in the last.")
    noun = "rows" if is_about_texts(run.config) else "pictures"
    for reward in dict.fromkeys(gain.reward for gain in summary.gains):
        console.print(gain_table([gain for gain in summary.gains if gain.reward == reward], noun))
    if parity := parity_rows(run):
        console.print(parity_table(parity))
    if summary.stages:
        console.print(time_table(summary))
        console.print(
            f"Share of a step outside model forward, backward, decode and reward: {words.percent(summary.overhead)}"
        )
    for problem in summary.problems:
        console.print(Text(f"Problem: {problem}", style="yellow"))
    return summary


def gain_table(gains: Sequence[Gain], noun: str = "pictures") -> Table:
    """One reward on held-out prompts, before and after: all of them, then each class."""
    from rich.table import Table
    from rich.text import Text

    unit = " (points)" if gains[0].is_rate else ""
    table = Table(title=Text(f"Held-out {gains[0].reward}, before and after"), title_justify="left")
    table.add_column("prompts")
    for name in (noun, "before", "after", f"gain{unit}", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for gain in gains:
        interval = words.interval_of(gain).removeprefix("95 % interval ") or words.DASH
        level = words.level(gain.before.mean, gain), words.level(gain.after.mean, gain)
        table.add_row(Text(gain.group), str(gain.after.n), *level, words.signed(gain.difference.mean, gain), interval)
    return table


def parity_table(rows: Sequence[ParityRow]) -> Table:
    """Means across user groups, before and after."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Parity across user groups, before and after", title_justify="left")
    table.add_column("reward")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.reward), Text(row.what), row.before, row.after)
    return table


def time_table(summary: Summary) -> Table:
    """Mean seconds per step and share of the step, stage by stage."""
    from rich.table import Table

    table = Table(title="Time per step", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for stage in summary.stages:
        share = words.percent(stage.share) if math.isfinite(stage.share) else "apart"
        table.add_row(stage.name, words.number(stage.seconds), share)
    return table
