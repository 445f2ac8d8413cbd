"""The configurations that come with the suite: in `configs/` of a checkout, in `align/configs` of a wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from align.errors import AlignError

LAUNCHER = "accelerate/"
"""Folder of settings that are read by Accelerate's launcher, not by us."""


def folder() -> Path:
    """Where the shipped configurations lie.

    Raises:
        AlignError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "configs", package.parent / "configs"):
        if (candidate / "demo").is_dir():
            return candidate
    raise AlignError("the shipped configurations are missing from this installation.", "Install align-suite again.")


def names() -> list[str]:
    """Names of run configurations, such as `diffusion/awm_sd35m`, in order."""
    return [name for name in _all_names() if not name.startswith(LAUNCHER)]


def launcher_names() -> list[str]:
    """Names of the settings for `accelerate launch --config_file`, in order."""
    return [name for name in _all_names() if name.startswith(LAUNCHER)]


def _all_names() -> list[str]:
    root = folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find(name: str) -> Path | None:
    """File of a shipped configuration, with or without `.yaml`; its last part alone will do. None if there is none."""
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    matches = [known for known in _all_names() if wanted in (known, known.rpartition("/")[2])]
    return folder() / f"{matches[0]}.yaml" if len(matches) == 1 else None


def get(name: str) -> Path:
    """File of a shipped configuration.

    Raises:
        AlignError: there is none of this name.
    """
    path = find(name)
    if path is None:
        raise AlignError(f"there is no shipped config `{name}`.", f"There are: {', '.join(names())}.")
    return path


def summary(path: Path) -> str:
    """First line of the comment at the top of a configuration."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def copy(name: str, destination: Path | None = None, *, force: bool = False) -> Path:
    """Copy a shipped configuration, to be edited.

    Args:
        name: its name.
        destination: a file or an existing folder; None is the working directory.
        force: overwrite a file that is already there.

    Raises:
        AlignError: unknown name, or a file is in the way.
    """
    source = get(name)
    target = destination or Path.cwd()
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise AlignError(f"`{target}` already exists.", "Choose another name, or overwrite it with --force.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
