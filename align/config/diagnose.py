"""Validation errors -> problems in a user's words: expected, found, nearest key, way out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from align.config.document import Document, KeyPath, dotted
from align.config.errors import Problem
from align.config.sections import (
    annotation_at,
    child,
    choose,
    field_types,
    has_kinds,
    kind_of,
    sections_of,
)

# Error type of pydantic -> what was expected. Braces are filled from the error's context.
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section (indented `key: value` lines)",
    "dataclass_type": "a section (indented `key: value` lines)",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
}


def problems_of(error: ValidationError, root: type, document: Document) -> list[Problem]:
    """Every problem of a validation error, one per place, in the order of the file."""
    grouped: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for item in error.errors(include_url=False):
        grouped.setdefault(_clean(item["loc"], document.data), []).append(item)
    order = list(document.places)
    known = {path: order.index(path) if path in document.places else len(order) for path in grouped}
    return [_problem(path, grouped[path], root, document) for path in sorted(grouped, key=known.__getitem__)]


def _clean(loc: Sequence[str | int], data: Any) -> KeyPath:
    """The path of an error in the user's data: tags and type names that pydantic puts between are left out."""
    path: list[str | int] = []
    for number, part in enumerate(loc):
        present = part in data if isinstance(data, Mapping) else isinstance(part, int) and child(data, part) is not None
        missing = number == len(loc) - 1 and isinstance(data, Mapping | list) and _is_name(part)
        if present or missing:
            path.append(part)
            data = child(data, part)
    return tuple(path)


def _is_name(part: str | int) -> bool:
    return isinstance(part, int) or part.isidentifier()


def _problem(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> Problem:
    first = items[0]
    explain = SPECIAL.get(first["type"], _wrong_value)
    message, way_out = explain(path, items, root, document)
    return Problem(keys=(dotted(path),), message=message, way_out=way_out, places=(document.place(path),))


def _wrong_value(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> tuple[str, str]:
    """Wrong type, out of range, not one of the allowed words."""
    expected = " or ".join(dict.fromkeys(_expected(item) for item in items))
    found = items[0]["input"]
    way_out = ""
    if found is None:
        way_out = f"Leave `{path[-1]}` out to take its default." if path else ""
    elif isinstance(found, str):
        words = [word for item in items for word in str(item.get("ctx", {}).get("expected", "")).split("'")[1::2]]
        way_out = _did_you_mean(found, words) or _number_hint(found, items)
    return f"`{dotted(path) or document.source}` expects {expected}, found {describe(found)}.", way_out


def _expected(item: Mapping[str, Any]) -> str:
    template = EXPECTED.get(item["type"])
    return item["msg"] if template is None else template.format(**item.get("ctx", {}))


def _number_hint(found: str, items: Sequence[Mapping[str, Any]]) -> str:
    wants_number = any(item["type"] in ("int_type", "float_type") for item in items)
    try:
        float(found)
    except ValueError:
        return ""
    return f"Write {found} without quotes." if wants_number else ""


def _unknown_key(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> tuple[str, str]:
    """A key that its section does not have."""
    *parent, key = path
    annotation = annotation_at(root, document.data, tuple(parent))
    section = choose(annotation, _at(document.data, parent))
    known = list(field_types(section)) if section else []
    where = f"`{dotted(tuple(parent))}`" if parent else "the top level"
    kind = kind_of(section) if section else None
    owners = [kind_of(other) for other in sections_of(annotation) if key in field_types(other)]
    if has_kinds(annotation) and owners:
        has = f"`{owners[0]}` has it" if len(owners) == 1 else f"{_words(owners)} have it"
        return (
            f"`{key}` is not a setting of `{kind}` (in {where}); {has}.",
            f"Remove it, or choose another `kind`. Settings of `{kind}`: {', '.join(known)}.",
        )
    of = f"`{kind}` (in {where})" if has_kinds(annotation) else where
    suggestion = _did_you_mean(str(key), known)
    elsewhere = "" if suggestion else _found_elsewhere(str(key), root)
    settings = f"Settings of {of}: {', '.join(known)}."
    return f"`{dotted(path)}` is unknown.", " ".join(part for part in (suggestion, elsewhere, settings) if part)


def _found_elsewhere(key: str, root: type) -> str:
    """Other sections that have a setting of this name."""
    homes = [
        f"{name}.{key}"
        for name, annotation in field_types(root).items()
        if any(key in field_types(section) for section in sections_of(annotation))
    ]
    return f"There is `{'`, `'.join(homes)}`." if homes else ""


def _unknown_kind(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> tuple[str, str]:
    kinds = [str(kind_of(section)) for section in sections_of(annotation_at(root, document.data, path))]
    found = child(_at(document.data, path), "kind")
    message = f"`{dotted(path)}.kind` expects one of {', '.join(kinds)}, found {describe(found)}."
    return message, _did_you_mean(str(found), kinds)


def _missing(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> tuple[str, str]:
    *parent, key = path
    if isinstance(key, int):
        return f"`{dotted(tuple(parent))}` has too few values: number {key + 1} is missing.", ""
    return f"`{dotted(path)}` is missing; it has no default.", f"Add `{key}: ...` there."


def _no_kind(path: KeyPath, items: Sequence[Mapping[str, Any]], root: type, document: Document) -> tuple[str, str]:
    kinds = [str(kind_of(section)) for section in sections_of(annotation_at(root, document.data, path))]
    return f"`{dotted(path)}.kind` is missing.", f"Choose one of {', '.join(kinds)}."


SPECIAL = {
    "unexpected_keyword_argument": _unknown_key,
    "union_tag_invalid": _unknown_kind,
    "union_tag_not_found": _no_kind,
    "missing": _missing,
}


def describe(value: Any) -> str:
    """A value as the user wrote it, with its type in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, Mapping):
        return f"a section with {', '.join(f'`{key}`' for key in list(value)[:4]) or 'nothing in it'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    words = {bool: "true/false", int: "whole number", float: "number with decimals", str: "text"}
    shown = repr(value) if isinstance(value, str) else json.dumps(value)
    return f"{shown:.80} ({words.get(type(value), type(value).__name__)})"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most like `word`, or None."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = nearest(word, known)
    return f"Did you mean `{near}`?" if near and near != word else ""


def _words(names: Sequence[Any]) -> str:
    return ", ".join(f"`{name}`" for name in names[:-1]) + f" and `{names[-1]}`"


def _at(data: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        data = child(data, part)
    return data
