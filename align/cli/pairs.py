"""The command `pairs`: scored candidates to preference pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from align.cli.app import Overrides, app


@app.command()
def pairs(
    samples: Annotated[Path, typer.Argument(metavar="SAMPLES", help="A file that `align score` wrote.")],
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="The config with `candidates.pairs`: which answers pair up."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file of pairs; default: pairs.jsonl beside SAMPLES.")
    ] = None,
) -> None:
    """Make preference pairs of scored answers, in the format that `align train` and TRL read."""
    from align.config.branches import branch_module, root_of
    from align.config.load import load_config

    loaded = None if config is None else load_config(config, overrides or (), check=False)
    branch_module(root_of("preference"), "commands").pairs(samples, config=loaded, output=output)
