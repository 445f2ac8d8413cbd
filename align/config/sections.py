"""Which dataclass a place in a configuration stands for: types of sections, walked along plain data."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from align.config.document import KeyPath


@cache
def field_types(section: type) -> Mapping[str, Any]:
    """Name -> annotation (with `Annotated` metadata) of a dataclass's fields, in order."""
    hints = get_type_hints(section, include_extras=True)
    return {item.name: hints[item.name] for item in fields(section)}


def alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, `Annotated` and nested unions opened; `None` left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    elif annotation is not type(None):
        yield annotation


def sections_of(annotation: Any) -> tuple[type, ...]:
    """The dataclasses that a field of this type can hold directly."""
    return tuple(member for member in alternatives(annotation) if isinstance(member, type) and is_dataclass(member))


def item_type(annotation: Any) -> Any | None:
    """Type of the entries when the field holds a list (`tuple[X, ...]`), else None."""
    for member in alternatives(annotation):
        args = get_args(member)
        if get_origin(member) is tuple and len(args) == 2 and args[1] is Ellipsis:
            return args[0]
    return None


def kind_of(section: type) -> str | None:
    """The value of `kind` that selects this dataclass, or None."""
    return next((str(item.default) for item in fields(section) if item.name == "kind"), None)


def has_kinds(annotation: Any) -> bool:
    """Whether `kind` chooses between several dataclasses here."""
    return len([section for section in sections_of(annotation) if kind_of(section)]) > 1


def choose(annotation: Any, data: Any) -> type | None:
    """The dataclass that `data` selects among those of a field, or None when there is none or its kind is unknown."""
    sections = sections_of(annotation)
    if len(sections) <= 1:
        return sections[0] if sections else None
    kind = data.get("kind") if isinstance(data, Mapping) else None
    return next((section for section in sections if kind_of(section) == kind), None)


def annotation_at(root: type, data: Any, path: KeyPath) -> Any | None:
    """Type of the field or list entry at `path`, by the kinds that `data` chooses; None if there is no such place."""
    annotation: Any = root
    for part in path:
        if isinstance(part, int):
            annotation = item_type(annotation)
        else:
            section = choose(annotation, data)
            annotation = field_types(section).get(part) if section else None
        if annotation is None:
            return None
        data = child(data, part)
    return annotation


def child(data: Any, part: str | int) -> Any:
    """`data[part]`, or None when there is nothing."""
    if isinstance(data, Mapping):
        return data.get(part)
    if isinstance(part, int) and isinstance(data, Sequence) and not isinstance(data, str) and -1 < part < len(data):
        return data[part]
    return None


def default_of(section: type, name: str) -> Any:
    """Default of a field, or None if it has none."""
    item = next(item for item in fields(section) if item.name == name)
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def fill_kinds(annotation: Any, data: Any, default: Any = None) -> Any:
    """`data` with `kind` written into the sections that leave it out and have a default one.

    `sampler: {noise_level: 0.3}` then means: the default sampler, with that noise level.
    """
    if isinstance(data, list):
        entry = item_type(annotation)
        return data if entry is None else [fill_kinds(entry, value) for value in data]
    if not isinstance(data, dict):
        return data
    if "kind" not in data and has_kinds(annotation) and is_dataclass(default):
        data = {"kind": kind_of(type(default)), **data}  # type: ignore[arg-type]
    section = choose(annotation, data)
    if section is None:
        return data
    hints = field_types(section)
    return {
        key: fill_kinds(hints[key], value, default_of(section, key)) if key in hints else value
        for key, value in data.items()
    }
