"""Brings formula and declaration together; `estimator` is the decorator that registers a formula.

An estimator is a file of this package with one decorated function that contains nothing but its formula:

    @estimator(Rloo)
    def rloo(inputs: AdvantageInputs, options: Rloo) -> Float[Tensor, "n"]: ...

The settings dataclass (`align/config`) is the registration: its `kind` is the name, its fields are the options, its
defaults are the only defaults, and `@declare` says what it needs and what it is. The function sees scorable rows only,
float64, dense ids, no gradient (`rules.py`), and may return advantages or a whole `AdvantageResult`; a stateful one
takes the state as a third argument.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

import align.advantages
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.config.declarations import Declaration, Options, declaration_of
from align.errors import did_you_mean

Function: TypeAlias = Callable[..., Tensor | AdvantageResult]
Registered = TypeVar("Registered", bound=Function)  # a decorated formula keeps its own type


@dataclass(frozen=True, kw_only=True)
class Estimator(Declaration):
    """A registered estimator: its declaration and its formula.

    Attributes:
        function: (inputs, options) -> advantages or result; (inputs, options, state) if stateful.
    """

    function: Function


_REGISTERED: dict[str, Estimator] = {}


def estimator(options_type: type[Options]) -> Callable[[Registered], Registered]:
    """Register the decorated formula under the `kind` of its settings, with what these declare."""

    def register(function: Registered) -> Registered:
        declared = declaration_of(options_type)
        entry = Estimator(**{item.name: getattr(declared, item.name) for item in fields(declared)}, function=function)
        _refuse_what_cannot_be(entry)
        _REGISTERED[entry.kind] = entry
        return function

    return register


def available() -> tuple[str, ...]:
    """Every registered kind, sorted."""
    _import_estimators()
    return tuple(sorted(_REGISTERED))


def find(kind: str) -> Estimator:
    """The estimator of that kind.

    Raises:
        ValueError: there is none; names the nearest and all.
    """
    kinds = available()
    if kind not in kinds:
        # Short names are shared by several papers (hapo, drpo, verl), so none of them is a kind; say which one is ours.
        longer = [name for name in kinds if name.startswith(f"{kind}_")]
        hint = f" Did you mean `{longer[0]}`?" if longer else did_you_mean(kind, kinds)
        raise ValueError(f"no advantage estimator {kind!r}.{hint} Available: {', '.join(kinds)}.")
    return _REGISTERED[kind]


def make_options(entry: Estimator, given: dict[str, Any]) -> Options:
    """The estimator's settings with its defaults where nothing is given.

    Raises:
        ValueError: an option is unknown or has a value of the wrong type.
    """
    known = entry.option_names()
    for name in given:
        if name not in known:
            raise ValueError(
                f"`{name}` is not an option of {entry.kind}.{did_you_mean(name, known)} Options: {', '.join(known)}."
            )
    try:
        return _adapter(entry.options_type).validate_python(given)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}, found {e['input']!r}" for e in error.errors()
        )
        raise ValueError(f"options of {entry.kind}: {problems}.") from None


@functools.cache
def _adapter(options_type: type[Options]) -> TypeAdapter:
    return TypeAdapter(options_type)


@functools.cache
def _import_estimators() -> None:
    """A file in this package is enough to add an estimator; nobody keeps a list."""
    for module in pkgutil.walk_packages(align.advantages.__path__, "align.advantages."):
        importlib.import_module(module.name)


def _refuse_what_cannot_be(entry: Estimator) -> None:
    """Mistakes of an estimator's author, found at import."""
    unknown = set(entry.reads()) - {item.name for item in fields(AdvantageInputs)}
    if unknown:
        raise TypeError(f"{entry.kind} requires {sorted(unknown)}, which AdvantageInputs does not have.")
    if entry.kind in _REGISTERED and _REGISTERED[entry.kind].function.__module__ != entry.function.__module__:
        raise TypeError(
            f"two estimators are called {entry.kind!r}: {_REGISTERED[entry.kind].function.__module__} has it."
        )
