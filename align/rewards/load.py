"""Rewards of a config, checked: refuse at start-up what would fail in the first step. Torch-free.

A reward is a function that takes keywords and returns one number per sample. A class is made with the reward's options
and its object is called: the place for a reward that loads a model. Entries that are equal share one object, so that
the rewards of training and those of the held-out evaluation do not load a model twice.
"""

from __future__ import annotations

import inspect
import json
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.shared import RewardConfig
from align.errors import AlignError, did_you_mean
from align.rewards.find import BUILT_IN, RewardError, find_function, told

SAMPLES = ("prompts", "images", "completions")  # what every reward may ask for, beside data-set columns
OBJECTS: weakref.WeakValueDictionary[tuple[type, str], Any] = weakref.WeakValueDictionary()
"""Objects of classes by class and options, for as long as a reward uses them."""
MAKING = threading.Lock()
SIGNATURE = "A reward looks like `def f(*, prompts, images, **columns)`, or `completions` for texts."


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A scorer that has been found.

    Attributes:
        name: in metrics and tables.
        weight: in the sum; 0 marks a metric.
        function: what to call.
        options: fixed keyword arguments.
        accepts: names of its keyword arguments; None if it takes any (`**columns`).
        needs: those without a default that the options do not give.
    """

    name: str
    weight: float
    function: Callable[..., Any]  # Any: what a user's function returns is checked by the scorer
    options: Mapping[str, Any]
    accepts: frozenset[str] | None
    needs: tuple[str, ...]

    def arguments(self, available: Mapping[str, Any]) -> dict[str, Any]:
        """What it is called with: those of the available arguments that it accepts, and its options."""
        taken = {name: value for name, value in available.items() if self.accepts is None or name in self.accepts}
        return {**taken, **self.options}


def load_reward(config: RewardConfig, search_dir: Path | None = None) -> Reward:
    """The reward of a config entry.

    Args:
        config: function, name, weight, options.
        search_dir: folder of the config; files are looked for here first, then in the working directory.

    Raises:
        RewardError: no such built-in, file, module or function; not callable; unknown option; a signature that no
        sample fits.
    """
    function = find_function(config.function, search_dir)
    label = config.function
    if not callable(function):
        raise RewardError(f"reward `{label}` is a {type(function).__name__}, not a function.", SIGNATURE)
    name = config.name or label.rpartition(":")[2]
    options: Mapping[str, Any] = dict(config.options)
    if inspect.isclass(function):
        _check_options(label, function, options)
        function, options = _made(label, function, options), {}
        if not callable(function):
            raise RewardError(
                f"reward `{label}` is a class whose objects cannot be called.", "Give it `__call__`. " + SIGNATURE
            )
    parameters = _parameters(label, function)
    _check_options(label, function, options)
    _check_parameters(label, parameters)
    return Reward(
        name=name,
        weight=config.weight,
        function=function,
        options=options,
        accepts=None if _takes_any(parameters) else frozenset(_keywords(parameters)),
        needs=tuple(
            item.name
            for item in _keywords(parameters).values()
            if item.default is inspect.Parameter.empty and item.name not in options
        ),
    )


def load_rewards(configs: Sequence[RewardConfig], search_dir: Path | None = None) -> tuple[Reward, ...]:
    """All rewards of a config; their names must differ, because metrics and tables go by them."""
    rewards = tuple(load_reward(config, search_dir) for config in configs)
    names = [reward.name for reward in rewards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RewardError(
            f"rewards must have different names, found {', '.join(f'`{name}`' for name in twice)} more than once.",
            "Set `name` of one of them.",
        )
    return rewards


def check_inputs(rewards: Iterable[Reward], available: Iterable[str]) -> None:
    """Refuse rewards that need an argument which no sample will have.

    Args:
        rewards: loaded rewards.
        available: `prompts`, `images` or `completions`, and the data-set's columns.

    Raises:
        RewardError: names each reward and what it lacks.
    """
    known = sorted(set(available))
    lacking = {reward.name: [need for need in reward.needs if need not in known] for reward in rewards}
    problems = [f"reward `{name}` needs {', '.join(map(repr, needs))}" for name, needs in lacking.items() if needs]
    if problems:
        raise RewardError(
            f"{'; '.join(problems)}. Samples here have: {', '.join(known)}.",
            "Add the column to the prompt file, give the argument a default, or set it under the reward's `options`.",
        )


def check_rows(rewards: Iterable[Reward], rows: Mapping[str, Sequence[Any]]) -> None:
    """Refuse prompts that a reward could never score, before a run.

    A reward that wants to be asked has a method `check_rows(**rows)`, which gets those of the rows that it accepts and
    raises an `AlignError`.

    Args:
        rewards: loaded rewards.
        rows: `prompts` and the data-set's columns, one entry per row.

    Raises:
        RewardError: names the reward and the row.
    """
    for reward in rewards:
        check = getattr(reward.function, "check_rows", None)
        if not callable(check):
            continue
        parameters = _parameters(reward.name, check)
        keywords = None if _takes_any(parameters) else _keywords(parameters)
        try:
            check(**{name: values for name, values in rows.items() if keywords is None or name in keywords})
        except AlignError as error:
            raise RewardError(f"reward `{reward.name}`: {error.message}", error.way_out) from error


def _made(label: str, kind: type, options: Mapping[str, Any]) -> Any:
    key = (kind, json.dumps(options, sort_keys=True, default=repr))
    with MAKING:
        made = OBJECTS.get(key)
        if made is not None:
            return made
        try:
            made = kind(**options)
        except AlignError as error:
            raise RewardError(f"reward `{label}`: {error.message}", error.way_out) from error
        except Exception as error:
            raise RewardError(f"reward `{label}` cannot be made: {told(error)}.", "Look at its `options`.") from error
        if type(made).__weakrefoffset__:  # a class with __slots__ may refuse weak references; then nothing is shared
            OBJECTS[key] = made
        return made


def _parameters(label: str, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise RewardError(
            f"reward `{label}` does not tell its arguments.", "Wrap it in a function. " + SIGNATURE
        ) from None


def _check_parameters(label: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    by_place = [
        item.name
        for item in parameters.values()
        if item.kind is item.POSITIONAL_ONLY and item.default is inspect.Parameter.empty
    ]
    if by_place:
        raise RewardError(
            f"reward `{label}` takes {', '.join(map(repr, by_place))} by position; rewards are called by keyword.",
            SIGNATURE,
        )
    if not _takes_any(parameters) and not {"images", "completions"} & set(_keywords(parameters)):
        found = ", ".join(parameters) or "no argument"
        raise RewardError(f"reward `{label}` takes neither `images` nor `completions`, found: {found}.", SIGNATURE)


def _check_options(label: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = _parameters(label, function)
    known = set(_keywords(parameters)) - set(SAMPLES)
    for name in options:
        if name in SAMPLES:
            raise RewardError(
                f"reward `{label}`: `{name}` is filled with the samples and cannot be an option.", "Remove it."
            )
        if name not in known and (label in BUILT_IN or not _takes_any(parameters)):  # built-in: `**columns` is columns
            raise RewardError(
                f"reward `{label}` has no option `{name}`.{did_you_mean(name, known)} "
                f"It has: {', '.join(sorted(known)) or 'none'}.",
                "Correct or remove it under `options`.",
            )


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(item.kind is item.VAR_KEYWORD for item in parameters.values())


def _keywords(parameters: Mapping[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    return {
        name: item for name, item in parameters.items() if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    }
