"""The command tree and what all commands share."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="align",
    help="Align text-to-image and language models with rewards. Start with `align demo`; then `align configs ls`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # an unexpected error keeps its plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to change, e.g. `rollout.group_size=4 training.ema=null`."),
]


def suite_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("align-suite")
    except PackageNotFoundError:
        return "0 (not installed)"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"align-suite {suite_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def console() -> Console:
    """Where commands print; wide enough for tables when the output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


def is_main_process() -> bool:
    """Whether this process speaks for all of a launch."""
    return os.environ.get("RANK", "0") == "0"


def command_line() -> str:
    """The command as it was typed, for the comment in the saved config."""
    return shlex.join(["align", *sys.argv[1:]])


def commands_of(config: Any) -> ModuleType:
    """The functions behind the commands for the branch of a configuration (a root dataclass, hence `Any`)."""
    from align.config.branches import branch_module

    return branch_module(type(config), "commands")


def run_folder_of(target: str) -> Path | None:
    """`target` if it is a run folder, else None."""
    path = Path(target).expanduser()
    return path if (path / "config.yaml").is_file() else None
