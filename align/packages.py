"""Files that lie inside installed Python packages, found without importing the package. Torch-free."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from align.errors import AlignError


def folder_of(package: str, install: str, purpose: str) -> Path:
    """The folder of an installed package. None of its code runs.

    Args:
        package: its import name.
        install: the command that installs it.
        purpose: what needs it, for the message: "reward `similarity`".

    Raises:
        AlignError: it is not installed.
    """
    spec = PathFinder.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise AlignError(f"{purpose} needs the Python package `{package}`, which is not installed.", install)
    return Path(next(iter(spec.submodule_search_locations)))


def check_installed(modules: tuple[str, ...], install: str, purpose: str) -> None:
    """Refuse to go on without these top-level modules.

    Raises:
        AlignError: names those that are missing and the command that installs them.
    """
    missing = [name for name in modules if PathFinder.find_spec(name) is None]
    if missing:
        raise AlignError(f"{purpose} needs {', '.join(missing)}, which is not installed.", install)
