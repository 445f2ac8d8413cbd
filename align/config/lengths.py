"""How long a run is: steps, or epochs over stored rows, which become steps once the rows are counted. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar

from align.config.checks import check_optimizer
from align.config.document import Document
from align.config.errors import ConfigError, Problem
from align.config.shared import TrainingConfig

R = TypeVar("R")

_SECTION = "training"
_KEYS = ("steps", "epochs")


def steps_of(epochs: float, rows: int, per_step: int) -> int:
    """The fewest steps in which `per_step` rows each make this many epochs: ceil(epochs * rows / per_step)."""
    return max(1, math.ceil(Fraction(repr(float(epochs))) * rows / per_step))


def with_steps(config: R, rows: int, per_step: int) -> R:
    """A root dataclass whose `training.epochs` have become `training.steps`; unchanged where it has none.

    Args:
        config: with the sections `training` and `optimizer`.
        rows: rows that can be used.
        per_step: rows that a step reads, over all processes.

    Raises:
        ConfigError: what depends on the steps does not go with them.
    """
    root: Any = config  # Any: the roots of the branches have no common type
    training: TrainingConfig = root.training
    if training.epochs is None or rows == 0:  # the sampler refuses to train on nothing, with a reason
        return config
    training = replace(training, steps=steps_of(training.epochs, rows, per_step), epochs=None)
    problems = list(check_optimizer(root.optimizer, training))
    if problems:
        raise ConfigError(problems)
    return replace(root, training=training)


def refuse_epochs(
    training: TrainingConfig, why: str = "the method learns from samples that it draws anew in each step"
) -> Iterator[Problem]:
    """Epochs where no stored rows are gone through.

    Args:
        training: settings of the run.
        why: what the run goes through instead.
    """
    if training.epochs is not None:
        yield Problem(
            keys=("training.epochs",),
            message=f"{why}: there is no number of rows that would make an epoch.",
            way_out="Set `training.steps` instead.",
        )


def one_length(before: Document, after: Document) -> Document:
    """Steps or epochs: an override of one replaces the file's other one.

    Args:
        before: the file.
        after: with overrides in it.

    Raises:
        ConfigError: the file gives both, or the overrides do.
    """
    section = after.data.get(_SECTION)
    if not isinstance(section, dict) or any(section.get(key) is None for key in _KEYS):
        return after
    paths = [(_SECTION, key) for key in _KEYS]
    new = [path for path in paths if after.places.get(path) != before.places.get(path)]
    if len(new) != 1:
        problem = Problem(
            keys=tuple(".".join(path) for path in paths),
            message="both say how long the run is.",
            way_out="Keep one of them; on a command line, either replaces the other of the file.",
            places=tuple(after.place(path) for path in paths),
        )
        raise ConfigError([problem], after.source)
    kept = {key: value for key, value in section.items() if (_SECTION, key) in new or key not in _KEYS}
    return replace(after, data={**after.data, _SECTION: kept})
