"""The command that averages runs: `soup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from align.cli.app import app, console
from align.errors import AlignError


@app.command()
def soup(
    parts: Annotated[
        list[str],
        typer.Argument(metavar="RUN=SHARE", help="Run folders or checkpoints of one base model, with shares."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the soup; it is read like a run.")],
) -> None:
    """Average what several runs added to one model (rewarded soups); one run with a share below 1 is a weaker run.

    Adapters are averaged as the products that they are, so the ranks add up.
    """
    from align.engine.soup import make_soup

    runs, shares = zip(*[_split(part) for part in parts], strict=True)
    folder = make_soup(runs, shares, output)
    console().print(f"{folder}: now `align evaluate {folder}`", markup=False, highlight=False, soft_wrap=True)


def _split(part: str) -> tuple[Path, float]:
    run, equals, share = part.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = None
    if not equals or value is None:
        raise AlignError(
            f"expected RUN=SHARE, found {part!r}.", "For example `align soup runs/a=0.5 runs/b=0.5 -o runs/ab`."
        )
    return Path(run).expanduser(), value
