"""The speed comparison compares the same numbers: a loop for every estimator, and both sides agree."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from align.advantages import estimate

PATH = Path(__file__).parents[2] / "benchmarks" / "advantages.py"


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module; it is no part of a package."""
    spec = importlib.util.spec_from_file_location("benchmark_advantages", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_group_estimator_agrees_with_its_loop(benchmark, capsys):
    """640 rewards only: no promise about their time."""
    ratios = benchmark.groups(samples=640, times=1)
    assert set(benchmark.compared_within_groups()) <= set(ratios) == set(benchmark.LOOPS)
    assert capsys.readouterr().out.count(" x\n") == len(ratios)


def test_a_loop_that_differs_is_an_error(benchmark, monkeypatch):
    monkeypatch.setitem(benchmark.LOOPS, "dr_grpo", lambda rewards, ids, lengths: 1.01 * rewards)
    with pytest.raises(ValueError, match="dr_grpo: loop and estimator differ"):
        benchmark.groups(samples=64, times=1)


def test_an_estimator_without_a_loop_is_an_error(benchmark, monkeypatch):
    monkeypatch.delitem(benchmark.LOOPS, "rloo")
    with pytest.raises(ValueError, match="write `loop_rloo`"):
        benchmark.groups(samples=64, times=1)


def test_a_fit_by_hand(benchmark):
    """(0, 0) (1, 1) (2, 1): slope 1/2, intercept 1/6; squares left 1/6, around the mean 2/3: R^2 = 3/4."""
    assert benchmark.fit([0.0, 1.0, 2.0], [0.0, 1.0, 1.0]) == pytest.approx((0.5, 0.75))


def test_the_trees_that_are_timed_branch(benchmark):
    inputs = benchmark.branching(32, 24)
    for kind in benchmark.TREES:
        assert estimate(kind, inputs).advantages.abs().max() > 0
    keys = inputs.token_ids[:16]
    assert torch.unique(keys[:, 0]).numel() < 16
    assert torch.unique(keys, dim=0).shape[0] == 16
