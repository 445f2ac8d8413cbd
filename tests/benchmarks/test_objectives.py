"""The benchmark of several objectives: its settings are settings of the suite, and its judge is worked by hand."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from align.config.load import load_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """A benchmark as it finds its neighbours; afterwards they are forgotten."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.split("_")[0] in ("objectives", "methods"):
            del sys.modules[name]


def test_every_point_is_a_setting_of_the_suite(benchmark_module, tmp_path):
    """All but PRO, whose adapters are no files yet; weights sum to 1, and no two points are alike."""
    objectives = benchmark_module("objectives")
    found = []
    for name, points in objectives.systems(tmp_path).items():
        assert len(points) == 4
        if name.startswith("PRO"):
            continue
        for overrides in points.values():
            config = load_config("demo/awm_tiny", [*objectives.COMMON, *overrides])
            assert [reward.name for reward in config.rewards] == list(objectives.UNITS)
            if config.pipeline.weights.kind == "fixed":
                assert sum(reward.weight for reward in config.rewards) == pytest.approx(1, abs=1e-5)
            found.append((config.pipeline, tuple(reward.weight for reward in config.rewards)))
    assert all(one not in found[:place] for place, one in enumerate(found))


def test_the_judge_by_hand(benchmark_module):
    """Pictures with rewards (1, 0), (0, 1), (2, -1), a third column of 0; the annotator wants the first alone, so its
    utilities are 1, 0, 2 and its order is third, first, second. Weights on the second alone order second, first,
    third: every pair the other way round, and the second is chosen at a regret of 2. Weights (0.5, 0.5) tie all
    pictures: no pair agrees, the first is chosen."""
    judge = benchmark_module("objectives_judge")
    rewards = np.array([[[1.0, 0, 0], [0, 1, 0], [2, -1, 0]]] * 3)
    utilities = np.array([[1.0, 0, 2]] * 3)
    agreement, regret = judge.judged(np.array([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]), utilities, rewards)
    assert agreement == pytest.approx([1, 0, 0])
    assert regret == pytest.approx([0, 2, 1])


def test_best_fixed_weights_of_labels_that_one_reward_decides(benchmark_module):
    """One pair that two rewards judge differently: whichever picture was preferred, the weights agree with it."""
    judge = benchmark_module("objectives_judge")
    low, high = ({"success": s, "compressibility": c, "colourfulness": 0.2} for s, c in ((1.0, -2.0), (0.0, -1.0)))
    one, two, _ = judge.best_fixed([{"chosen_rewards": high, "rejected_rewards": low}])
    gain = judge.deviations(high) - judge.deviations(low)
    assert one * gain[0] + two * gain[1] > 0
    one, two, _ = judge.best_fixed([{"chosen_rewards": low, "rejected_rewards": high}])
    assert one * gain[0] + two * gain[1] < 0
