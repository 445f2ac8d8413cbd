"""A file and overrides -> frozen dataclasses, or every mistake at once; and back to a file that runs again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from align.config import shipped
from align.config.branches import branch_module, branches, root_of
from align.config.diagnose import describe, nearest, problems_of
from align.config.document import Document, Dumper, read_document
from align.config.errors import ConfigError, Problem
from align.config.lengths import one_length
from align.config.overrides import apply_overrides, drop_settings_of_old_kinds, parse_override
from align.config.paths import locate
from align.config.sections import fill_kinds

CONFIG_NAME = "config.yaml"


def load_config(
    source: str | Path, overrides: Sequence[str] = (), *, processes: int | None = None, check: bool = True
) -> Any:
    """Read, override, check.

    Args:
        source: a YAML file, a run folder or a checkpoint in one (the run's resolved config is taken), or the name of a
            shipped config.
        overrides: `dotted.key=value` texts.
        processes: how many processes will run it, for the batch arithmetic; None takes WORLD_SIZE, or 1.
        check: look for contradictions and missing files; not needed to compare settings or to look at an old run.

    Returns:
        The branch's root dataclass (its type is known at run time only, hence `Any`).

    Raises:
        ConfigError: everything that is wrong, with places and ways out.
    """
    path = find_config(source)
    document = read_document(_read(path), _shown(path))
    config, document = resolve(document, overrides, folders=(path.parent.resolve(), Path.cwd()))
    if check:
        check_config(config, processes=processes, document=document)
    return config


def resolve(document: Document, overrides: Sequence[str], folders: Sequence[Path]) -> tuple[Any, Document]:
    """Document and overrides -> dataclass with absolute paths, and the document with the overrides in it.

    Raises:
        ConfigError: unknown keys, wrong types, numbers out of range; all of them together.
    """
    before = document
    document = apply_overrides(document, _parse_overrides(overrides))
    root = _root(document)
    document = one_length(before, document)
    document = drop_settings_of_old_kinds(root, before, document)
    document = replace(document, data=fill_kinds(root, document.data))
    try:
        # Through JSON: its strict validation takes lists for tuples and whole numbers for floats, and nothing else.
        config = adapter(root).validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        raise ConfigError(problems_of(error, root, document), document.source) from error
    return locate(config, folders), document


def check_config(config: Any, *, processes: int | None = None, document: Document | None = None) -> None:
    """Refuse settings that contradict each other, all of them together.

    Raises:
        ConfigError: with the keys of each contradiction and a way out.
    """
    found: Iterable[Problem] = branch_module(type(config), "checks").contradictions(config, processes or world_size())
    document = document or Document(source="", data={})
    problems = [replace(problem, places=_places(problem, document)) for problem in found]
    if problems:
        raise ConfigError(problems, document.source)


def save_config(config: Any, path: str | Path, *, command: str = "") -> Path:
    """Write a resolved configuration. The file is itself runnable and loads to an equal object from any folder.

    Args:
        config: a root dataclass.
        path: the file to write.
        command: the command that made the run, for the comment at the top.
    """
    path = Path(path)
    header = [f"# Made by: {command}"] if command else []
    header.append("# Every setting of the run, defaults included. `align train` on this file runs it again.")
    path.write_text("\n".join([*header, to_yaml(config)]), encoding="utf-8")
    return path


def to_yaml(config: Any) -> str:
    """Every setting of a configuration as YAML."""
    return yaml.dump(to_plain(config), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def to_plain(config: Any) -> dict[str, Any]:
    """Mappings, lists and scalars of a configuration, as a YAML or JSON file holds them."""
    return json.loads(json.dumps(asdict(config)))


def world_size() -> int:
    """Number of processes of this launch, from the environment that `accelerate launch` sets."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


@cache
def adapter(root: type) -> TypeAdapter[Any]:
    """Strict validator of a root dataclass; what strict means is its `__pydantic_config__`."""
    return TypeAdapter(root)


def find_config(source: str | Path) -> Path:
    """The file that `source` means: a file, the config of a run folder, or a shipped config.

    Raises:
        ConfigError: there is none; names the nearest shipped one.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _config_of_folder(path)
    found = shipped.find(str(source))
    if found is not None:
        return found
    near = nearest(str(source).removesuffix(".yaml"), shipped.names())
    hint = f"Did you mean the shipped config `{near}`? " if near else ""
    message = f"there is no config file, run folder or shipped config `{source}`."
    raise ConfigError([Problem(keys=(), message=message, way_out=f"{hint}`align configs ls` lists the shipped ones.")])


def _config_of_folder(path: Path) -> Path:
    """The resolved config of a run folder, or of the run folder that a checkpoint is in."""
    inside_run = path.resolve().parent.name == "checkpoints"
    candidates = [path, path.resolve().parents[1]] if inside_run else [path]
    for folder in candidates:
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    message = f"`{path}` is a folder without {CONFIG_NAME}: neither a run folder nor a checkpoint of one."
    raise ConfigError([Problem(keys=(), message=message, way_out="Give the folder that `align train` printed.")])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read `{path}`: {error}."
        raise ConfigError(
            [Problem(keys=(), message=message, way_out="It must be a readable UTF-8 text file.")]
        ) from error


def _shown(path: Path) -> str:
    """The shortest name that still finds the file."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _parse_overrides(texts: Sequence[str]) -> list[Any]:
    parsed, problems = [], []
    for text in texts:
        try:
            parsed.append(parse_override(text))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return parsed


def _root(document: Document) -> type:
    """The dataclass that `branch:` chooses."""
    known = branches()
    branch = document.data.get("branch")
    if isinstance(branch, str) and branch in known:
        return root_of(branch)
    lines = " or ".join(f"`branch: {name}`" for name in known)
    if "branch" not in document.data:
        problem = Problem(keys=("branch",), message="`branch` is missing.", way_out=f"Add the line {lines}.")
    else:
        near = nearest(str(branch), list(known))
        message = f"`branch` expects one of {', '.join(known)}, found {describe(branch)}."
        way_out = f"Did you mean `{near}`?" if near else f"Write {lines}."
        problem = Problem(keys=("branch",), message=message, way_out=way_out, places=(document.place(("branch",)),))
    raise ConfigError([problem], document.source)


def _places(problem: Problem, document: Document) -> tuple[str, ...]:
    """Where the keys of a contradiction were set; keys left at their defaults have no place."""
    paths = (tuple(int(part) if part.isdecimal() else part for part in key.split(".")) for key in problem.keys)
    return tuple(dict.fromkeys(document.places[path] for path in paths if path in document.places))
