"""The command `teach`: what teachers say of the training data, computed once."""

from __future__ import annotations

from typing import Annotated

import typer

from align.cli.app import Overrides, app, commands_of


@app.command()
def teach(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="The config of the run that learns from the teachers: `dckd`, `adpa`."),
    ],
    overrides: Overrides = None,
) -> None:
    """Compute the teacher records of a run of DCKD or ADPA; `align train` with the same config then reads them."""
    from align.config.load import load_config
    from align.errors import AlignError

    loaded = load_config(config, overrides or ())
    commands = commands_of(loaded)
    if not hasattr(commands, "teach"):
        raise AlignError(
            f"the branch `{loaded.branch}` has no methods with teachers.", "Give a config of `dckd` or `adpa`."
        )
    commands.teach(loaded)
