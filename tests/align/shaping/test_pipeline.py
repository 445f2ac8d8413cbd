"""From the reward table to the signal: by hand, what is logged, and what outlives a step."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest
import torch

from align.advantages import AdvantageResult, registry
from align.config.declarations import declare
from align.config.group_relative import DrGrpo, FlowGrpo, Grpo
from align.config.pipeline import PipelineConfig
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

NAN = math.nan
IDS = torch.tensor([0, 1, 0, 1])


def table(values, weights, names=None):
    names = names or tuple(f"r{k}" for k in range(len(weights)))
    return RewardTable(names=names, values=torch.tensor(values), weights=torch.tensor(weights))


def test_by_hand():
    """Scores 1*1 + 2*3 = 7, 1 + 0 = 1, 3 + 2 = 5, 3 + 6 = 9. Group 0: 7, 5 -> +-1. Group 1: 1, 9 -> -+4, clipped to
    3."""
    config = PipelineConfig(base=DrGrpo(), clip=3.0)
    signal = SignalPipeline(config)(table([[1.0, 3.0], [1.0, 0.0], [3.0, 1.0], [3.0, 3.0]], [1.0, 2.0]), IDS)
    assert signal.scores.tolist() == [7.0, 1.0, 5.0, 9.0]
    assert signal.advantages.tolist() == [1.0, -3.0, -1.0, 3.0]
    assert signal.advantages.dtype == torch.float32


def test_log_of_every_stage_by_hand():
    """Rewards a: 1 1 3 3 (mean 2, unbiased std sqrt(4/3)); the scores are a. Groups 1 3 and 1 3: std sqrt 2 each.

    Advantages -1 -1 1 1, clipped to 0.5: all four of them.
    """
    config = PipelineConfig(base=DrGrpo(), clip=0.5)
    signal = SignalPipeline(config)(
        table([[1.0, NAN], [1.0, 5.0], [3.0, 5.0], [3.0, 5.0]], [1.0, 0.0], ("a", "b")), IDS
    )
    assert signal.stats == pytest.approx(
        {
            "rewards/a/mean": 2.0,
            "rewards/a/std": math.sqrt(4 / 3),
            "rewards/b/mean": 5.0,
            "rewards/b/std": 0.0,
            "reward": 2.0,
            "reward_std": math.sqrt(2),
            "frac_reward_zero_std": 0.0,
            "singletons": 0.0,
            "unscored": 0.0,
            "advantages/mean_abs": 0.5,
            "advantages/max_abs": 0.5,
            "advantages/frac_nonzero": 1.0,
            "advantages/frac_clipped": 1.0,
        }
    )


def test_the_released_awm_numbers():
    """Defaults: group mean over the batch's population std + 1e-4, clipped to 5. Scores 1 1 3 3: std 1."""
    signal = SignalPipeline(PipelineConfig())(table([[1.0], [1.0], [3.0], [3.0]], [1.0]), IDS)
    assert signal.advantages.tolist() == pytest.approx([-1 / 1.0001, -1 / 1.0001, 1 / 1.0001, 1 / 1.0001])


def test_an_unscored_sample_gets_no_advantage_and_hurts_no_other():
    values = [[1.0], [1.0], [3.0], [2.0], [NAN]]
    ids = torch.tensor([0, 1, 0, 1, 1])
    config = PipelineConfig(base=Grpo())
    signal = SignalPipeline(config)(table(values, [1.0]), ids)
    without = SignalPipeline(config)(table(values[:4], [1.0]), ids[:4])
    assert signal.scores.isnan().tolist() == [False] * 4 + [True]
    assert torch.equal(signal.advantages[:4], without.advantages)
    assert signal.advantages[4] == 0
    assert signal.stats["unscored"] == 1


def test_a_metric_never_matters():
    ids, weights = IDS, [1.0, 0.0]
    plain = SignalPipeline(PipelineConfig())(table([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]], weights), ids)
    wild = SignalPipeline(PipelineConfig())(table([[1.0, NAN], [2.0, 1e30], [3.0, -7.0], [4.0, NAN]], weights), ids)
    assert torch.equal(plain.advantages, wild.advantages)
    assert torch.equal(plain.scores, wild.scores)


def test_a_step_without_any_score_is_silent_and_logs_no_nan():
    signal = SignalPipeline(PipelineConfig())(table([[NAN], [NAN], [NAN], [NAN]], [1.0]), IDS)
    assert signal.scores.isnan().all()
    assert signal.advantages.tolist() == [0.0] * 4
    assert "reward" not in signal.stats
    assert all(math.isfinite(value) for value in signal.stats.values())


def test_clip_null_is_off():
    values = [[0.0], [0.0], [100.0], [100.0]]
    signal = SignalPipeline(PipelineConfig(base=DrGrpo(), clip=None))(table(values, [1.0]), IDS)
    assert signal.advantages.tolist() == [-50.0, -50.0, 50.0, 50.0]
    assert signal.stats["advantages/frac_clipped"] == 0


def test_a_clip_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"`pipeline.clip` must be above 0, found 0"):
        SignalPipeline(PipelineConfig(clip=0.0))


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match=r"all rewards \(r0\) have weight 0"):
        SignalPipeline(PipelineConfig())(table([[1.0]] * 4, [0.0]), IDS)


@declare(stateful=True, exact_zero=False, min_group=1, scope="batch")
@dataclass(frozen=True, kw_only=True)
class Running:
    """A stateful estimator for this test: the reward minus the mean of all rewards seen so far."""

    kind: Literal["running_for_test"] = "running_for_test"


@pytest.fixture
def running(monkeypatch):
    registry.available()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))

    @registry.estimator(Running)
    def formula(inputs, options, state):
        count = state.get("count", 0) + len(inputs)
        total = state.get("total", 0.0) + float(inputs.rewards.sum())
        return AdvantageResult(advantages=inputs.rewards - total / count, state={"count": count, "total": total})

    return PipelineConfig(base=Running())


def test_statistics_outlive_a_step_and_a_checkpoint(running):
    """Step one: mean of 1 2 3 4 is 2.5. Step two: mean of eight numbers with sum 10 + 26 is 4.5."""
    pipeline = SignalPipeline(running)
    first, second = ([[1.0], [2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0], [8.0]])
    assert pipeline(table(first, [1.0]), IDS).advantages.tolist() == [-1.5, -0.5, 0.5, 1.5]
    resumed = SignalPipeline(running)
    resumed.load_state_dict(pipeline.state_dict())
    expected = [0.5, 1.5, 2.5, 3.5]
    assert pipeline(table(second, [1.0]), IDS).advantages.tolist() == expected
    assert resumed(table(second, [1.0]), IDS).advantages.tolist() == expected
    assert resumed.state_dict() == pipeline.state_dict() == {"base.count": 8, "base.total": 36.0}


def test_stateless_estimators_have_nothing_to_store():
    pipeline = SignalPipeline(PipelineConfig(base=FlowGrpo()))
    pipeline(table([[1.0], [2.0], [3.0], [4.0]], [1.0]), IDS)
    assert pipeline.state_dict() == {}


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="no state \\['optimizer'\\]"):
        SignalPipeline(PipelineConfig()).load_state_dict({"optimizer": 1})
