"""The installed branches: each announces the dataclass of its configuration as an entry point `align.branches`."""

from __future__ import annotations

import importlib
import tomllib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

GROUP = "align.branches"


@cache
def branches() -> dict[str, str]:
    """Name of a branch -> `module:Class` of its root dataclass. Imports neither."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return dict(sorted((_checkout_branches() | found).items()))


def _checkout_branches() -> dict[str, str]:
    """What the pyproject.toml beside a checkout announces, so that it also runs without being installed."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not project.is_file():
        return {}
    return tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("entry-points", {}).get(GROUP, {})


def root_of(branch: str) -> type:
    """The dataclass that holds a run of this branch."""
    module, _, name = branches()[branch].partition(":")
    return getattr(importlib.import_module(module), name)


def branch_module(root: type, name: str) -> ModuleType:
    """Module `name` of the package that defines `root`: `checks`, `plan`, `commands`."""
    return importlib.import_module(f"{root.__module__.rpartition('.')[0]}.{name}")
