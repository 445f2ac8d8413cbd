"""The schema of a branch's configuration: as JSON schema for editors, and as a reference page for people."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from align.config.load import adapter, to_plain
from align.config.sections import default_of, field_types, item_type, sections_of

Schema: TypeAlias = Mapping[str, Any]  # Any: JSON schema is untyped JSON

WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true/false", "null": "null"}
BOUNDS = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "exclusiveMaximum": "< {}", "maximum": "<= {}"}


def json_schema(root: type) -> dict[str, Any]:
    """JSON schema of a root dataclass, with the docstring under each field as its description.

    An editor with a YAML language server completes keys and shows these texts.
    """
    schema = adapter(root).json_schema()
    schemas = {root.__name__: schema, **schema.get("$defs", {})}
    for section in _classes(root):
        _add_made_defaults(schemas[section.__name__], section)
        _add_inherited_descriptions(schemas[section.__name__], section)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _classes(section: type) -> Iterator[type]:
    """This dataclass and all that its fields can hold."""
    yield section
    for annotation in field_types(section).values():
        for inner in sections_of(item_type(annotation) or annotation):
            yield from _classes(inner)


def _add_made_defaults(schema: dict[str, Any], section: type) -> None:
    """Write down the defaults that a factory makes; pydantic leaves them out."""
    for name, field in schema["properties"].items():
        default = default_of(section, name)
        if is_dataclass(default) and not isinstance(default, type):
            field["default"] = to_plain(default)


def _add_inherited_descriptions(schema: dict[str, Any], section: type) -> None:
    """Help texts of inherited fields, from the class that has them: pydantic reads those of the class itself only."""
    for base in section.__mro__[1:]:
        for name, text in _help_texts(base).items() if is_dataclass(base) else ():
            schema["properties"][name].setdefault("description", text)


def _help_texts(section: type) -> dict[str, str]:
    """The string under each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(definition.body)  # type: ignore[attr-defined]  # a class has a body
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A dataclass at a place of the configuration."""

    path: str
    kind: str | None
    schema: Schema


def markdown(root: type) -> str:
    """Reference page of a root dataclass: one table per section, in the order of the file."""
    schema = json_schema(root)
    parts = [f"# Settings of `branch: {schema['properties']['branch']['const']}`", ""]
    for section in _sections(schema, schema["$defs"], ""):
        parts += _table(section, schema["$defs"])
    return "\n".join(parts)


def _sections(schema: Schema, defs: Schema, path: str, kind: str | None = None) -> Iterator[_Section]:
    """This section and the ones under it."""
    yield _Section(path=path, kind=kind, schema=schema)
    for name, field in schema["properties"].items():
        below = f"{path}.{name}".lstrip(".") + (".N" if "items" in field else "")
        for target in _targets(field, defs):
            yield from _sections(target, defs, below, target["properties"].get("kind", {}).get("const"))


def _targets(field: Schema, defs: Schema) -> list[Schema]:
    """The section schemas that a field can hold, directly or in a list."""
    options = [field, *field.get("anyOf", []), *field.get("oneOf", []), field.get("items", {})]
    options += field.get("items", {}).get("oneOf", [])
    names = [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]
    return [defs[name] for name in names]


def _table(section: _Section, defs: Schema) -> list[str]:
    heading = f"`{section.path}`" if section.path else "Top level"
    if section.kind is not None:
        heading += f", `kind: {section.kind}`"
    lines = [f"{'##' if section.kind is None else '###'} {heading}", "", section.schema.get("description", ""), ""]
    lines += ["| setting | value | default | meaning |", "|---|---|---|---|"]
    required = section.schema.get("required", [])
    for name, field in section.schema["properties"].items():
        targets = _targets(field, defs)
        meaning = field.get("description") or next((target.get("description", "") for target in targets), "")
        default = "required" if name in required else _default(field)
        lines.append(f"| `{name}` | {_type(field, defs)} | {default} | {_cell(meaning)} |")
    return [*lines, ""]


def _default(field: Schema) -> str:
    default = field.get("default")
    if isinstance(default, Mapping):
        return f"`{default['kind']}`" if "kind" in default else "its defaults" if default else "empty"
    return f"`{json.dumps(default)}`" if "default" in field else "empty"


def _type(field: Schema, defs: Schema) -> str:
    """Type of a field in words."""
    targets = _targets(field, defs)
    words = [_word(option) for option in field.get("anyOf", [field]) if not _is_section(option)]
    if targets:
        kinds = [target["properties"].get("kind", {}).get("const") for target in targets]
        what = "section" if kinds == [None] else f"section of kind {', '.join(f'`{kind}`' for kind in kinds)}"
        words = [f"list of {what}s" if "items" in field else what, *words]
    return _cell(" or ".join(words))


def _is_section(option: Schema) -> bool:
    items = option.get("items", {})
    return any("$ref" in part or "oneOf" in part for part in (option, items if isinstance(items, dict) else {}))


def _word(option: Schema) -> str:
    if "enum" in option or "const" in option:
        return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    if option.get("type") == "array":
        inner = option.get("prefixItems") or [option.get("items", {})]
        return f"list of {len(inner) if 'prefixItems' in option else ''} {_word(inner[0])}s".replace("  ", " ")
    bounds = [words.format(f"{option[key]:g}") for key, words in BOUNDS.items() if key in option]
    return " ".join([WORDS.get(str(option.get("type")), "section"), *bounds])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
