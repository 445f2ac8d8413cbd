"""A small branch of its own, so that the loader is tested apart from the settings of the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, with_config

from align.config import branches
from align.config import load as loading
from align.config.document import read_document
from align.config.numbers import PositiveInt, Share
from align.config.paths import FilePath, FunctionPath, ModelPath
from align.config.shared import STRICT


@dataclass(frozen=True, kw_only=True)
class Calm:
    """No noise."""

    kind: Literal["calm"] = "calm"
    """Selects it."""
    draws: int = 3
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Wild:
    """Noise."""

    kind: Literal["wild"] = "wild"
    """Selects it."""
    draws: int = 4
    """How many."""
    noise_level: float = 0.5
    """How much."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An entry of a list."""

    function: FunctionPath
    """What it is."""
    weight: float = 1.0
    """How much it counts."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed on."""


@dataclass(frozen=True, kw_only=True)
class Average:
    """A section that may be null."""

    decay: Share = 0.9
    """How slowly."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths."""

    train: FilePath = "builtin:x"
    """A file."""
    heldout: FilePath | None = None
    """Another one."""
    model: ModelPath = "owner/name"
    """A folder or an id."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ToyRun:
    """A run of the toy branch."""

    branch: Literal["toy"] = "toy"
    """The branch."""
    seed: int = 0
    """The seed."""
    steps: PositiveInt = 10
    """How long."""
    rate: float = 1e-3
    """How fast."""
    precision: Literal["no", "bf16"] = "no"
    """Number format."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Two numbers."""
    targets: Literal["attention"] | tuple[str, ...] = "attention"
    """A word or a list."""
    sampler: Annotated[Calm | Wild, Field(discriminator="kind")] = field(default_factory=Wild)
    """One of two."""
    average: Average | None = field(default_factory=Average)
    """May be null."""
    items: tuple[Item, ...] = ()
    """A list of sections."""
    files: Files = field(default_factory=Files)
    """Paths."""


@pytest.fixture
def toy(monkeypatch):
    """The toy branch, announced as an installed one: `.load(text, *overrides, folders=())` and its classes."""

    def load(text: str, *overrides: str, folders=()) -> ToyRun:
        return loading.resolve(read_document(text, "toy.yaml"), overrides, folders)[0]

    monkeypatch.setattr(loading, "branches", lambda: {**branches.branches(), "toy": "unused:ToyRun"})
    monkeypatch.setattr(loading, "root_of", lambda name: ToyRun if name == "toy" else branches.root_of(name))
    return SimpleNamespace(load=load, Run=ToyRun, Calm=Calm, Wild=Wild, Item=Item, Average=Average)
