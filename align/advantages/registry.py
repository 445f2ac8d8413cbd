"""Every estimator says here what it needs and what it is; `estimator` is the decorator that registers it.

An estimator is a file of this package with one decorated function that contains nothing but its formula:

    @estimator(Rloo, requires=("group_ids",))
    def rloo(inputs: AdvantageInputs, options: Rloo) -> Float[Tensor, "n"]: ...

The settings dataclass (`align/config/pipeline.py`) is the registration: its `kind` is the name, its fields are the
options and its defaults are the only defaults. The function sees scorable rows only, float64, dense ids, no gradient
(`rules.py`), and may return advantages or a whole `AdvantageResult`; a stateful one takes the state as a third
argument.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

import align.advantages
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.errors import did_you_mean
from align.groups import Scope

Options: TypeAlias = Any  # one frozen dataclass per estimator; they have nothing in common but `kind`
Function: TypeAlias = Callable[..., Tensor | AdvantageResult]
Registered = TypeVar("Registered", bound=Function)  # a decorated formula keeps its own type


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A registered estimator: its declaration, its settings and its formula.

    Attributes:
        options_type: frozen dataclass of the settings.
        function: (inputs, options) -> advantages or result; (inputs, options, state) if stateful.
        requires: fields of `AdvantageInputs` that must be given, beside the rewards.
        requires_any: tuples of fields; at least one of each tuple must be given.
        optional: fields that are read if they are given.
        also_requires: further fields that must be given under these options.
        scope: `group` means that a group's result depends on that group only; `batch` needs all processes' rows. A
            function of the options where they decide.
        granularity: one advantage per sample, or one per sample and position.
        stateful: whether a result depends on earlier calls.
        min_group: scorable members below which a group is a singleton.
        modality: what it is defined for.
        stage: `base` makes advantages from rewards, a `shaper` changes them, `loss` and `rollout` act elsewhere.
        exact_zero: rule C1: equal rewards in a group give exactly 0.
        decomposes: accepts rewards `[n, m]`.
        default_base: of a shaper: settings of the base stage that its paper shapes.
    """

    options_type: type[Options]
    function: Function
    requires: tuple[str, ...]
    requires_any: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    also_requires: Callable[[Options], tuple[str, ...]] | None = None
    scope: Scope | Callable[[Options], Scope] = "group"
    granularity: Literal["sample", "token"] = "sample"
    stateful: bool = False
    min_group: int = 2
    modality: Literal["both", "sequence", "image"] = "both"
    stage: Literal["base", "shaper", "loss", "rollout"] = "base"
    exact_zero: bool = True
    decomposes: bool = False
    default_base: Options | None = None

    @property
    def kind(self) -> str:
        """Name under which it is found: the settings' `kind`."""
        return self.options_type.kind

    def reads(self) -> tuple[str, ...]:
        """Every field that the formula may look at, beside the rewards."""
        return (*self.requires, *(name for names in self.requires_any for name in names), *self.optional)

    def needs(self, options: Options) -> tuple[str, ...]:
        """Fields that must be given under these options, beside the rewards and one of each of `requires_any`."""
        return self.requires if self.also_requires is None else (*self.requires, *self.also_requires(options))

    def scope_of(self, options: Options) -> Scope:
        """`group` or `batch` under these options."""
        return self.scope(options) if callable(self.scope) else self.scope

    def base_settings(self, base: Options | None = None) -> Options:
        """Settings of the base stage: these, or those that the paper of a shaper has."""
        return self.default_base if base is None else base

    def option_names(self) -> tuple[str, ...]:
        """Names of the options, without `kind`."""
        return tuple(item.name for item in fields(self.options_type) if item.name != "kind")


_REGISTERED: dict[str, Estimator] = {}


def estimator(
    options_type: type[Options], *, requires: tuple[str, ...] = (), **declaration: Any
) -> Callable[[Registered], Registered]:
    """Register the decorated function under the `kind` of its settings; `declaration` fills fields of `Estimator`."""

    def register(function: Registered) -> Registered:
        entry = Estimator(options_type=options_type, function=function, requires=requires, **declaration)
        _refuse_what_cannot_be(entry)
        _REGISTERED[entry.kind] = entry
        return function

    return register


def shaper(
    options_type: type[Options], *, base: Options, requires: tuple[str, ...] = (), **declaration: Any
) -> Callable[[Registered], Registered]:
    """Register a formula that changes the advantages of a base stage, which it finds in `inputs.advantages`.

    What the base has made of equal rewards and of singletons stands, unless the formula itself adds to it.

    Args:
        options_type: settings.
        base: settings of the base stage that the paper shapes, computed where a caller gives no advantages.
        requires: fields that must be given, beside rewards and advantages.
        declaration: further fields of `Estimator`.
    """
    declaration = {"min_group": 1, **declaration, "stage": "shaper", "exact_zero": False, "default_base": base}
    return estimator(options_type, requires=("advantages", *requires), **declaration)


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
