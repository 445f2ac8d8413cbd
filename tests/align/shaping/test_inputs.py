"""What estimators read beside scores and groups: from rewards, from the rollout, and what is missing at the start."""

import math

import pytest
import torch

from align.advantages import AdvantageInputs, estimate
from align.config.estimators import Canon, CopoConsistency, DdpoTracked, ReinforcePP
from align.config.group_relative import Grpo
from align.config.pipeline import PipelineConfig
from align.config.shapers import NegativeOnly, Ucas
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

IDS = torch.tensor([0, 0, 0, 0])


def table(columns, weights):
    values = torch.tensor(list(columns.values())).T.contiguous()
    return RewardTable(names=tuple(columns), values=values, weights=torch.tensor(weights))


def test_a_metric_column_splits_the_groups_of_canon():
    """Sharpness ascending 0 1 | 2 3, rewards 1 0 | 1 1: inter 1 - 1, 0 - 1 | 1 - .5, 1 - .5."""
    config = PipelineConfig(base=Canon(mu=1.0), inputs={"metric": "sharpness"}, clip=None)
    rewards = table({"score": [1.0, 1.0, 0.0, 1.0], "sharpness": [0.0, 2.0, 1.0, 3.0]}, [1.0, 0.0])
    signal = SignalPipeline(config)(rewards, IDS)
    assert signal.advantages.tolist() == [0.0, 0.5, -1.0, 0.5]


def test_a_reward_can_say_what_is_correct():
    config = PipelineConfig(base=CopoConsistency(mode="only-zero"), inputs={"correct": "strict"})
    rewards = table({"score": [0.2, 0.4, 0.6, 0.8], "strict": [0.0, 1.0, math.nan, 1.0]}, [1.0, 0.0])
    signal = SignalPipeline(config)(rewards, torch.tensor([0, 0, 1, 1]), answers=list("abab"))
    assert signal.aux["local_weight"].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_shapers_change_what_the_base_gave_in_their_order():
    rewards = table({"score": [1.0, 0.0, 0.0, 0.0]}, [1.0])
    config = PipelineConfig(base=Grpo(eps=0.0), shapers=(NegativeOnly(),), clip=None)
    signal = SignalPipeline(config)(rewards, IDS)
    assert signal.advantages.tolist() == pytest.approx([0.0, -0.5, -0.5, -0.5])
    assert signal.stats["advantages/frac_nonzero"] == 0.75


def test_a_token_shaper_gets_its_inputs_from_the_caller():
    rewards = table({"score": [1.0, 0.0, 0.0, 0.0]}, [1.0])
    generator = torch.Generator().manual_seed(0)
    fields = {"mask": torch.ones(4, 3), "self_certainty": torch.rand(4, 3, generator=generator)}
    fields["token_logits"] = torch.rand(4, 3, generator=generator)
    config = PipelineConfig(base=Grpo(eps=1e-6), shapers=(Ucas(),), clip=None)
    signal = SignalPipeline(config)(rewards, IDS, **fields)
    inputs = AdvantageInputs(rewards=rewards.values[:, 0], group_ids=IDS, **fields)
    assert torch.equal(signal.advantages, estimate("ucas", inputs).advantages)


def test_statistics_of_prompts_outlive_a_checkpoint():
    config = PipelineConfig(base=DdpoTracked(min_count=2, eps=0.0), clip=None)
    pipeline = SignalPipeline(config)
    first = table({"score": [1.0, 3.0, 5.0, 9.0]}, [1.0])
    pipeline(first, IDS, prompt_ids=torch.tensor([5, 5, 6, 6]))
    resumed = SignalPipeline(config)
    resumed.load_state_dict(pipeline.state_dict())
    second = table({"score": [2.0, 2.0, 7.0, 7.0]}, [1.0])
    results = [one(second, IDS + 1, prompt_ids=torch.tensor([5, 5, 6, 6])).advantages for one in (pipeline, resumed)]
    assert torch.equal(*results)
    assert results[0].tolist() == [0.0] * 4  # 2 is the mean of 1 3 2 2, 7 that of 5 9 7 7


class TestWhatIsMissing:
    def test_is_named_before_anything_is_rolled_out(self):
        pipeline = SignalPipeline(PipelineConfig(base=Canon(), shapers=(Ucas(),)))
        with pytest.raises(
            ValueError,
            match=r"canon needs `metric`; ucas needs `mask`, `self_certainty`, `token_logits`.*brings: .*step",
        ):
            pipeline.check_collected(("prompt_ids", "step"))

    @pytest.mark.parametrize(
        "config",
        [
            PipelineConfig(),
            PipelineConfig(base=Canon(), inputs={"metric": "sharpness"}),
            PipelineConfig(base=Canon(split="random", schedule="cosine")),
            PipelineConfig(base=DdpoTracked(), shapers=(NegativeOnly(),)),
            PipelineConfig(base=ReinforcePP()),
        ],
        ids=lambda config: config.base.kind,
    )
    def test_pictures_have_enough_for_these(self, config):
        SignalPipeline(config).check_collected(("prompt_ids", "step"))

    def test_an_option_can_need_more(self):
        pipeline = SignalPipeline(PipelineConfig(base=ReinforcePP(kl_beta=0.1)))
        with pytest.raises(ValueError, match="reinforce_pp needs `mask`, `logprobs`, `ref_logprobs`"):
            pipeline.check_collected(())

    def test_a_reward_cannot_be_everything(self):
        with pytest.raises(ValueError, match=r"cannot fill `metrik` from a reward. Did you mean `metric`"):
            SignalPipeline(PipelineConfig(inputs={"metrik": "sharpness"}))

    def test_a_reward_that_is_not_there(self):
        pipeline = SignalPipeline(PipelineConfig(base=Canon(), inputs={"metric": "sharpnes"}))
        with pytest.raises(ValueError, match="Did you mean `sharpness`"):
            pipeline(table({"score": [1.0] * 4, "sharpness": [1.0] * 4}, [1.0, 0.0]), IDS)
