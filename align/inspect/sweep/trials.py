"""A sweep that trains: one run folder for each setting and seed; what is finished is not trained again.

Every run is what `align train CONFIG KEY=VALUE ...` would have made.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.branches import branch_module
from align.config.load import CONFIG_NAME, load_config, to_plain
from align.engine.checkpoint import latest
from align.engine.folder import step_name, step_number
from align.errors import AlignError
from align.inspect.sweep.sources import Source

NAMED = re.compile(r"^\s*([^\s:={}/]+)(?:/([^\s:={}/]+))?:(?:\s+(.*))?$", re.DOTALL)
"""`soft/equal: pipeline.combine.kind=soft_min`: the system that a setting belongs to and what its point is called."""
UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
LONGEST = 100
"""Characters of a folder's name, without seed."""
AS_IT_IS = "as configured"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a sweep.

    Attributes:
        system: name of its system.
        label: what it is called: its overrides, unless it has been given a name.
        seed: of the training.
        folder: of the run.
        config: root dataclass of a branch (hence `Any`).
    """

    system: str
    label: str
    seed: int
    folder: Path
    config: Any

    @property
    def source(self) -> Source:
        """Where its points are read from."""
        return Source(system=self.system, run=self.folder, label=self.label, seed=self.seed)


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """`0,1,2` as numbers; none for None.

    Raises:
        AlignError: something else, or a seed twice.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise AlignError(f"expected different seeds as `0,1,2`, found `{text}`.", "For example --seeds 0,1,2.")
    return tuple(int(part) for part in parts)


def planned(config: str, tries: Sequence[str], seeds: Sequence[int], output: Path, *, shared: str = "") -> list[Trial]:
    """All trainings of a sweep, each checked before the first begins.

    Args:
        config: a config file or the name of a shipped config.
        tries: overrides of each setting as on a command line, `SYSTEM: ` or `SYSTEM/POINT: ` before them
            where they are to have names.
        seeds: of the training; empty takes the config's own.
        output: folder of the sweep; runs go into `runs/`.
        shared: overrides of all settings; they give no names.

    Raises:
        AlignError: settings that are no settings or the same twice, or a folder that another setting has made.
    """
    found: list[Trial] = []
    common = _split(shared, "--with")
    for text in tries:
        system, point, overrides = _parsed(text, default=Path(config).stem)
        label = point or " ".join(overrides) or AS_IT_IS
        for seed in seeds or (None,):
            name = folder_name([system, *([point] if point else overrides)]) + ("" if seed is None else f"-seed{seed}")
            if any(trial.folder.name == name for trial in found):
                raise AlignError(f"the setting `{label}` of `{system}` is given twice.", "Give each --try once.")
            more = [] if seed is None else [f"seed={seed}"]
            directory = (output / "runs").resolve()
            place = [f"output.directory={shlex.quote(str(directory))}", f"output.name={shlex.quote(name)}"]
            loaded = load_config(config, [*common, *overrides, *more, *place])
            if loaded.training.epochs is not None:
                raise AlignError(
                    "a sweep compares trainings of equal length, and finds finished ones by their last step.",
                    "Set training.steps; `align plan` says how many the epochs come to.",
                )
            trial = Trial(system=system, label=label, seed=loaded.seed, folder=directory / name, config=loaded)
            _check_settings(trial)
            found.append(trial)
    return found


def folder_name(parts: Sequence[str]) -> str:
    """A name from system and point or overrides that every file system takes; a long one is cut and gets a hash."""
    name = UNSAFE.sub("-", "-".join(parts)).strip("-.")
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def train_all(trials: Sequence[Trial], command: str) -> None:
    """Train what is not finished, one after the other, each from where it is.

    Args:
        trials: of `planned`.
        command: what was typed, for the comment in the saved configs.

    Raises:
        AlignError: a training was stopped; the same command goes on with it.
    """
    for trial in trials:
        if finished(trial):
            continue
        resume = trial.folder if (trial.folder / CONFIG_NAME).is_file() else None
        branch_module(type(trial.config), "commands").train(
            trial.config, name=trial.folder.name, resume=resume, command=command
        )
        if not finished(trial):
            raise AlignError(
                f"the training in {trial.folder} was stopped before its last step.", "Repeat the command to go on."
            )


def finished(trial: Trial) -> bool:
    """Whether the last step's checkpoint and evaluation and the report are there."""
    steps = trial.config.training.steps
    if not (trial.folder / "report.html").is_file():
        return False
    if not (trial.folder / "evaluations" / f"{step_name(steps)}.json").is_file():
        return False
    newest = latest(trial.folder / "checkpoints")
    return newest is not None and step_number(newest.name) == steps


def _parsed(text: str, default: str) -> tuple[str, str, list[str]]:
    """System, name of the point if it has one, overrides."""
    match = NAMED.match(text)
    system, point, rest = match.groups(default="") if match else (default, "", text)
    return system, point, _split(rest, "--try")


def _split(text: str, option: str) -> list[str]:
    """Overrides as a shell would take them apart."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise AlignError(
            f"{option} `{text}` cannot be read: {error}.", "Write overrides as on a command line, with quotes in pairs."
        ) from error


def _check_settings(trial: Trial) -> None:
    """Refuse to mix a folder's run with other settings than it was made with."""
    if not (trial.folder / CONFIG_NAME).is_file():
        return
    made = _flat(to_plain(load_config(trial.folder, check=False)))
    asked = _flat(to_plain(trial.config))
    differs = sorted(key for key in made.keys() | asked.keys() if made.get(key) != asked.get(key))
    differs = [key for key in differs if not key.startswith("output.")]
    if differs:
        first = differs[0]
        raise AlignError(
            f"{trial.folder} was made with other settings: `{first}` is {made.get(first)!r} there and "
            f"{asked.get(first)!r} here" + (f", and {len(differs) - 1} more differ." if len(differs) > 1 else "."),
            "Choose another --output, or remove that folder.",
        )


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings and lists."""
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    else:
        return {prefix: node}
    if not pairs:
        return {prefix: node}
    return {
        key: value
        for name, part in pairs
        for key, value in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }
