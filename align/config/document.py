"""YAML text -> plain data, and the line of every key. Plain YAML 1.2 scalars: `no` is a text, `1e-4` is a number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from align.config.errors import ConfigError, Problem

KeyPath: TypeAlias = tuple[str | int, ...]

_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789.")),
)
_BREAKS = "\n\r\x85\u2028\u2029"
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class Loader(yaml.SafeLoader):
    """The safe loader without YAML 1.1's surprises: `no` and dates are texts, 010 is ten, 1e-4 is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the class attribute PyYAML reads)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in PyYAML, but an alias is refused: every key keeps one place."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """A whole number, always decimal."""
        return int(self.construct_scalar(node).replace("_", ""))


class Dumper(yaml.SafeDumper):
    """Quotes whatever this loader or a YAML 1.1 reader would not take for the same text."""

    yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Equal values are written out each time."""
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Texts with line breaks in double quotes: PyYAML loses U+0085 and its like in the other styles."""
        style = '"' if any(mark in text for mark in _BREAKS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag, _pattern, _first in _SCALARS:
    Loader.add_implicit_resolver(_tag, _pattern, _first)
    Dumper.add_implicit_resolver(_tag, _pattern, _first)
Dumper.add_representer(str, Dumper.represent_text)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_decimal)


@dataclass(frozen=True, kw_only=True)
class Document:
    """Plain data of a file, with overrides applied.

    Attributes:
        source: name of the file, for messages.
        data: mappings, lists and scalars.
        places: path of a key -> where it was set ("my.yaml, line 3", "override `seed=1`").
    """

    source: str
    data: dict[str, Any]  # Any: checked against the dataclasses later
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where `path` was set, or its nearest parent that was."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.source


def read_scalar(text: str) -> Any:
    """Value of one YAML text, as in an override: a number, a text, a list, a section.

    Raises:
        yaml.YAMLError: `text` is no YAML.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _build(loader, node)
    finally:
        loader.dispose()


def read_document(text: str, source: str) -> Document:
    """Parse a configuration file.

    Raises:
        ConfigError: no YAML, an empty file, duplicate keys, or something else than `key: value` at the top.
    """
    places: dict[KeyPath, str] = {}
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            problems = [] if node is None else list(_scan(node, (), source, places))
            data = None if node is None or problems else _build(loader, node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(error, source)], source) from error
    if problems:
        raise ConfigError(problems, source)
    if not isinstance(data, dict):
        found = "an empty file" if data is None else f"{type(data).__name__} {data!r:.60}"
        raise ConfigError(
            [Problem(keys=(), message=f"expected `key: value` lines, found {found}.", way_out=START_FROM)], source
        )
    return Document(source=source, data=data, places=places)


START_FROM = "Start from a shipped one: `align configs ls`, then `align configs copy NAME`."


def _scan(node: yaml.Node, path: KeyPath, source: str, places: dict[KeyPath, str]) -> Iterator[Problem]:
    """Note the line of every key under `node`; yield duplicate and odd keys."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*path, index)] = f"{source}, line {child.start_mark.line + 1}"
            yield from _scan(child, (*path, index), source, places)
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, child in node.value:
        place = f"{source}, line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            yield Problem(keys=(), message="a key must be a plain word.", places=(place,))
            continue
        here = (*path, str(key_node.value))
        if here in places:
            message = f"`{dotted(here)}` is set twice (first in {places[here]})."
            yield Problem(keys=(dotted(here),), message=message, way_out="Keep one of them.", places=(place,))
        places[here] = place
        yield from _scan(child, here, source, places)


def _build(loader: Loader, node: yaml.Node) -> Any:
    """Plain data of a node. Keys stay texts, whatever they look like; tags such as `!!python/...` are refused."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag `{node.tag}` is not read", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _build(loader, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child) for child in node.value]
    return loader.construct_object(node)


def _syntax_problem(error: yaml.YAMLError, source: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error)
    place = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else source
    return Problem(
        keys=(),
        message=f"this is not the YAML we read: {reason}.",
        way_out="Look at the line above, too: an indent, a missing `: ` or an open bracket is the usual reason.",
        places=(place,),
    )


def dotted(path: KeyPath) -> str:
    """`("rewards", 0, "weight")` -> `"rewards.0.weight"`."""
    return ".".join(str(part) for part in path)
