"""Credit from the configured pipeline: one advantage per position, state kept, needs named at the start."""

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.config.pipeline import PipelineConfig
from align.config.shapers import NoveltyBonus, ProbabilityMask
from align.config.trees import Tempo
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

from ..rollouts import interleaved, rollouts

CONFIG = PipelineConfig(base=Tempo(), shapers=(ProbabilityMask(rho=0.7), NoveltyBonus(coefficient=0.5)), clip=None)
FIELDS = ("mask", "token_ids", "logprobs", "state_key", "turn_id")


def table(rewards):
    return RewardTable(names=("judge",), values=rewards.unsqueeze(1), weights=torch.ones(1))


def test_the_pipeline_does_what_the_stages_do_one_by_one():
    rewards, ids = interleaved(2)
    whole = rollouts(rewards, ids)
    given = {name: getattr(whole, name) for name in FIELDS}
    pipeline = SignalPipeline(CONFIG)
    first, second = pipeline(table(rewards), ids, **given), pipeline(table(rewards), ids, **given)

    def stages(state):
        inputs = AdvantageInputs(rewards=rewards, group_ids=ids, **given)
        credit = estimate("tempo", inputs).advantages
        for kind, options in (("probability_mask", {"rho": 0.7}), ("novelty_bonus", {"coefficient": 0.5})):
            shaped = AdvantageInputs(rewards=rewards, group_ids=ids, advantages=credit, **given)
            result = estimate(kind, shaped, state=state if kind == "novelty_bonus" else None, **options)
            credit = result.advantages
        return result

    expected = stages(None)
    assert_close(first.advantages, expected.advantages)
    assert_close(second.advantages, stages(expected.state).advantages)
    assert not torch.equal(first.advantages, second.advantages)  # what was new is known now
    resumed = SignalPipeline(CONFIG)
    resumed.load_state_dict(pipeline.state_dict())
    assert torch.equal(
        resumed(table(rewards), ids, **given).advantages, pipeline(table(rewards), ids, **given).advantages
    )


def test_what_a_rollout_must_bring_is_said_before_the_first_step():
    with pytest.raises(ValueError, match="tempo needs `mask`, `token_ids` or `step_key`; probability_mask needs"):
        SignalPipeline(CONFIG).check_collected(())
    SignalPipeline(CONFIG).check_collected(FIELDS)
