"""Scripts of tests/runs, importable by the tests of this folder, and fresh Accelerate singletons."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

RUNS = Path(__file__).parents[2] / "runs"


def script(name: str) -> ModuleType:
    """A script of tests/runs as a module."""
    spec = importlib.util.spec_from_file_location(name, RUNS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The toy method."""
    return script("engine_toy")


@pytest.fixture(scope="session")
def networks() -> ModuleType:
    """Miniatures of all kinds of networks."""
    return script("engine_networks")


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate keeps its settings in singletons; each test starts without them, on the processor."""
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
