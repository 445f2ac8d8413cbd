"""Dotted overrides of a configuration: `rollout.group_size=4`, `rewards.0.weight=2`, `training.ema=null`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import yaml

from align.config.document import Document, KeyPath, dotted, read_scalar
from align.config.errors import ConfigError, Problem
from align.config.sections import annotation_at, child, field_types, kind_of, sections_of


@dataclass(frozen=True, kw_only=True)
class Override:
    """One `key=value` of the command line; the value is read as YAML."""

    text: str
    path: KeyPath
    value: Any  # Any: whatever YAML says

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"override `{self.text}`"


def parse_override(text: str) -> Override:
    """Read `dotted.key=value`.

    Raises:
        ConfigError: no `=`, an empty key or value, or a value that is no YAML.
    """

    def refuse(message: str, way_out: str) -> ConfigError:
        return ConfigError([Problem(keys=(), message=message, way_out=way_out, places=(f"override `{text}`",))])

    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise refuse("expected `dotted.key=value`.", "For example `training.steps=20` or `rewards.0.weight=2`.")
    if not value.strip():
        raise refuse("there is no value after `=`.", f"Write `{key}=null` for nothing or `{key}=''` for an empty text.")
    try:
        parsed = read_scalar(value)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or error
        raise refuse(f"the value is not YAML: {reason}.", "Quote a text with special characters.") from error
    path = tuple(int(part) if part.isdecimal() else part for part in parts)
    return Override(text=text, path=path, value=parsed)


def apply_overrides(document: Document, overrides: Sequence[Override]) -> Document:
    """A new document with the overrides in it; the later of two equal keys wins.

    Raises:
        ConfigError: an override that points into a single value or past the end of a list; all of them together.
    """
    data, places = copy.deepcopy(document.data), dict(document.places)
    problems = []
    for override in overrides:
        problem = _set(data, override)
        if problem is not None:
            problems.append(problem)
            continue
        for path in [path for path in places if path[: len(override.path)] == override.path]:
            del places[path]
        places[override.path] = override.place
    if problems:
        raise ConfigError(problems, document.source)
    return Document(source=document.source, data=data, places=places)


def _set(data: Any, override: Override) -> Problem | None:
    """Write the value into `data` in place, making missing sections; a problem if the path leads nowhere."""
    node = data
    part: Any  # Any: a key of a section or a number of a list, as `_misfit` has made sure
    for depth, part in enumerate(override.path):
        refusal = _misfit(node, part, dotted(override.path[:depth]))
        if refusal:
            return _refuse(override, refusal)
        if isinstance(node, list) and part == len(node):
            node.append(None)
        if depth == len(override.path) - 1:
            node[part] = override.value
            return None
        if child(node, part) is None:
            node[part] = [] if isinstance(override.path[depth + 1], int) else {}
        node = node[part]
    return None


def _misfit(node: Any, part: str | int, name: str) -> str:
    """Why `part` is no key of `node`, which is called `name`; empty if it is one."""
    if isinstance(node, list) and isinstance(part, int):
        return "" if part <= len(node) else f"`{name}` has {len(node)} entries; the next free number is {len(node)}."
    if isinstance(node, list):
        return f"`{name}` is a list, whose entries have numbers."
    if isinstance(part, int):
        return f"`{name}` is no list."
    return "" if isinstance(node, dict) else f"`{name}` is the single value {node!r}, not a section."


def _refuse(override: Override, message: str) -> Problem:
    return Problem(keys=(dotted(override.path),), message=message, places=(override.place,))


def drop_settings_of_old_kinds(root: type, before: Document, after: Document) -> Document:
    """Where an override chose another `kind`, leave out the file's settings that only the old kind has.

    `algorithm.times.kind=uniform` on a file with `{kind: discrete, draws: 6, until: 0.9}` keeps `draws`, drops `until`.
    Settings that were overridden themselves stay, so that a wrong one is reported.
    """
    data = copy.deepcopy(after.data)
    for path, place in after.places.items():
        if path[-1] == "kind" and before.places.get(path) != place:
            _drop_old(root, data, path[:-1], before, after)
    return Document(source=after.source, data=data, places=after.places)


def _drop_old(root: type, data: Any, path: KeyPath, before: Document, after: Document) -> None:
    section = reduce(child, path, data)
    by_kind = {kind_of(choice): set(field_types(choice)) for choice in sections_of(annotation_at(root, data, path))}
    if not isinstance(section, dict) or section.get("kind") not in by_kind:
        return
    foreign = set().union(*by_kind.values()) - by_kind[section["kind"]]
    for key in foreign & section.keys():
        if after.places.get((*path, key)) == before.places.get((*path, key)):
            del section[key]
