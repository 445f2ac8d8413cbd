"""The command `align`: parse, load, call. Nothing heavy is imported before a command needs it.

Commands that show or check (`configs`, `schema`, `plan`, `--help`) never import torch. The others find the functions
of a configuration's branch in `<branch>.commands`.
"""

from __future__ import annotations

import sys

from align.cli import runs  # noqa: F401 - commands register themselves, in the order of the help page

# isort: split
from align.cli import (
    adapter,  # noqa: F401
    audits,  # noqa: F401
    looks,  # noqa: F401
    pairs,  # noqa: F401
    soup,  # noqa: F401
    sweep,  # noqa: F401
    teach,  # noqa: F401
)
from align.cli.app import app, is_main_process
from align.errors import AlignError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; a mistake of the user ends with its message and exit code 2, without a traceback."""
    try:
        app()
    except AlignError as error:
        if is_main_process() or not _same_everywhere(error):
            _print_error(error)
        sys.exit(error.exit_code)


def _same_everywhere(error: AlignError) -> bool:
    """Whether every process of a launch finds this mistake, so that one of them is enough to tell."""
    from align.config.errors import ConfigError

    return isinstance(error, ConfigError)


def _print_error(error: AlignError) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", style="bold red") + Text(error.message, style="default"))
    if error.way_out:
        console.print(Text(f"  {error.way_out}", style="default"))
