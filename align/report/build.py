"""Write the report page of a run folder."""

from __future__ import annotations

import os
from pathlib import Path

from align.report.grids import evenly, open_picture, progress_strip
from align.report.page import render
from align.report.read import read_run
from align.report.records import Tile

NAME = "report.html"


def write_report(run_folder: Path | str) -> Path:
    """Read a run folder and write `report.html` into it; an older page is replaced in one go.

    Args:
        run_folder: finished, killed or still running; only its files are read.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: the folder is not a run folder.
    """
    run = read_run(run_folder)
    target = run.folder / NAME
    draft = target.with_suffix(".html.part")
    draft.write_text(render(run), encoding="utf-8")
    os.replace(draft, target)
    return target


def write_strip(run_folder: Path | str, target: Path | str, *, columns: int = 6, tile: int = 128) -> Path:
    """Draw a run's progress strip as one picture, for slides and READMEs.

    Args:
        run_folder: a run folder whose config draws strips (`evaluation.strip_every`).
        target: the picture to write; its ending says the format.
        columns: at most so many steps, evenly spaced, the first and the last among them.
        tile: side of a tile in pixels.

    Raises:
        FileNotFoundError: the folder is not a run folder.
        ValueError: the run has no strip.
    """
    run = read_run(run_folder)
    steps = evenly([tile.step for tile in run.strip], columns)
    if not steps:
        raise ValueError(
            f"expected strip pictures in {run.folder / 'strip'}, found none. Set `evaluation.strip_every` above 0."
        )
    rows: dict[tuple[str, int], dict[int, Tile]] = {}
    for one in run.strip:
        rows.setdefault((one.prompt, one.seed), {})[one.step] = one
    pictures = [
        [open_picture(tiles[step].image) if step in tiles else None for step in steps] for tiles in rows.values()
    ]
    target = Path(target)
    progress_strip(pictures, prompts=[prompt for prompt, _ in rows], steps=steps, tile=tile).save(target)
    return target
