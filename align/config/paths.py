"""Paths in a configuration: made absolute when it is read, so that the saved copy runs from anywhere.

A relative path is looked for beside the configuration file first, then in the working directory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from align.config.sections import alternatives, field_types

T = TypeVar("T")
Folders: TypeAlias = Sequence[Path]


@dataclass(frozen=True)
class Located:
    """Marks a text field that names a file; `find` makes it absolute, given the folders to look in."""

    find: Callable[[str, Folders], str]


def find_file(text: str, folders: Folders) -> str:
    """A file: absolute, in the first folder that has it; in the first of all where none has (the reader reports it)."""
    if text.startswith("builtin:") or not text.strip():
        return text
    path = Path(text).expanduser()
    candidates = [folder / path for folder in folders]
    return str(next((candidate for candidate in candidates if candidate.exists()), candidates[0]).resolve())


def find_folder_or_id(text: str, folders: Folders) -> str:
    """A model: a folder where there is one or it can be nothing else (`./x`, `/x`, `~/x`); otherwise an id."""
    path = Path(text).expanduser()
    is_path = path.is_absolute() or text.startswith(("./", "../", "~"))
    is_folder = any((folder / path).is_dir() for folder in folders)
    return find_file(text, folders) if is_path or (is_folder and text.strip()) else text


def find_function(text: str, folders: Folders) -> str:
    """A reward: the file of `file.py:function` is made absolute; names and import paths stay."""
    file, colon, function = text.rpartition(":")
    return f"{find_file(file, folders)}:{function}" if colon and file.endswith(".py") else text


FilePath = Annotated[str, Located(find_file)]
"""A text field that names a file."""
ModelPath = Annotated[str, Located(find_folder_or_id)]
"""A text field that names a model folder or a hub id."""
FunctionPath = Annotated[str, Located(find_function)]
"""A text field that names a function."""


def locate(config: T, folders: Folders) -> T:
    """A copy of a configuration with every `Located` field made absolute."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    changes = {
        item.name: _locate_value(getattr(config, item.name), field_types(type(config))[item.name], folders)
        for item in fields(config)
        if item.init
    }
    return replace(config, **changes)


def _locate_value(value: Any, annotation: Any, folders: Folders) -> Any:
    marker = _marker(annotation)
    if marker is not None and isinstance(value, str):
        return marker.find(value, folders)
    if isinstance(value, tuple):
        return tuple(_locate_value(entry, type(entry), folders) for entry in value)
    return locate(value, folders)


def _marker(annotation: Any) -> Located | None:
    if get_origin(annotation) is Annotated:
        return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, Located)), None)
    if any(member is not annotation for member in alternatives(annotation)) and annotation is not None:
        return next((found for member in get_args(annotation) if (found := _marker(member)) is not None), None)
    return None
