"""What an estimator says about itself, beside its settings and readable without torch.

    @declare(requires=("group_ids",), scope="batch")
    @dataclass(frozen=True, kw_only=True)
    class Gpg: ...

The table of docs/advantages.md, the checks before a run, and what a rollout collects are made from these declarations;
the formula (`align/advantages`) finds its own under its settings. Fields are those of `AdvantageInputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar

Options: TypeAlias = Any  # one frozen dataclass per estimator; they have nothing in common but `kind`
Scope: TypeAlias = Literal["group", "batch"]
Settings = TypeVar("Settings", bound=type)  # a decorated class keeps its own type


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What an estimator needs and what it is.

    Attributes:
        options_type: frozen dataclass of the settings.
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
    requires: tuple[str, ...] = ()
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


_DECLARED: dict[type, Declaration] = {}


def declare(**declaration: Any) -> Callable[[Settings], Settings]:
    """Declare the estimator whose settings the decorated class holds; the arguments fill fields of `Declaration`."""

    def register(options_type: Settings) -> Settings:
        _DECLARED[options_type] = Declaration(options_type=options_type, **declaration)
        return options_type

    return register


def declare_shaper(
    *, base: Options, requires: tuple[str, ...] = (), **declaration: Any
) -> Callable[[Settings], Settings]:
    """Declare an estimator that changes the advantages of a base stage, which it finds in `inputs.advantages`.

    What the base has made of equal rewards and of singletons stands, unless the formula itself adds to it.

    Args:
        base: settings of the base stage that the paper shapes, computed where a caller gives no advantages.
        requires: fields that must be given, beside rewards and advantages.
        declaration: further fields of `Declaration`.
    """
    declaration = {"min_group": 1, **declaration, "stage": "shaper", "exact_zero": False, "default_base": base}
    return declare(requires=("advantages", *requires), **declaration)


def declaration_of(options_type: type[Options]) -> Declaration:
    """What the estimator with these settings has declared.

    Raises:
        TypeError: nothing; a mistake of its author.
    """
    if options_type not in _DECLARED:
        raise TypeError(f"{options_type.__name__} declares nothing. Put `@declare(...)` above its `@dataclass`.")
    return _DECLARED[options_type]


def scope_of(options: Options) -> Scope:
    """Whose rows the estimator with these settings looks at: the `group` or the `batch`."""
    return declaration_of(type(options)).scope_of(options)
