"""Scores of each prompt over the steps, and the reference of LSC that is made of them."""

import math

import pytest
import torch

from align.config import shaping as s
from align.config.estimators import Remax
from align.config.group_relative import DrGrpo
from align.config.pipeline import PipelineConfig
from align.shaping.pipeline import SignalPipeline
from align.shaping.stored import StoredSamples
from align.types import RewardTable

LSC = s.Lsc(reference=s.ReferencePrompt(q=0.5, samples=3))
PIPELINE = PipelineConfig(transforms=(LSC,), base=DrGrpo(), clip=None)


def table(values):
    return RewardTable(names=("a",), values=torch.tensor(values).unsqueeze(1), weights=torch.tensor([1.0]))


def scores(pipeline, values, prompts, update=True):
    ids = 100 * len(values) + torch.tensor(prompts)  # numbered anew, as in every step
    return pipeline(table(values), ids, prompt_ids=torch.tensor(prompts), update=update).scores


def log_sigmoid(z):
    return -math.log1p(math.exp(-z))


def test_the_first_samples_of_a_prompt_are_kept_by_hand():
    """Prompt 5 sees 1, 3; then 8, 20; with 3 enough all four are taken, and 50 no more. Prompt 7 sees nan, 2, 4.

    The median of 1 3 8 20 is 5.5, that of 2 4 is 3; the mean of the four is 8.
    """
    stored = StoredSamples(3)
    stored.update(torch.tensor([1.0, math.nan, 3.0]), torch.tensor([5, 7, 5]))
    stored.update(torch.tensor([8.0, 2.0, 20.0]), torch.tensor([5, 7, 5]))
    stored.update(torch.tensor([50.0, 4.0]), torch.tensor([5, 7]))
    found = stored.reference(torch.tensor([5, 7, 9]), q=0.5, method="empirical")
    assert found[:2].tolist() == [5.5, 3.0]
    assert found[2].isnan()  # never seen
    assert stored.reference(torch.tensor([5]), q=0.5, method="gaussian").tolist() == [8.0]


def test_a_reference_per_prompt_over_the_steps():
    """q = 1/2 is the mean. Step 1: prompt 0 has 1, 3: r_ref 2; prompt 1 has 10, 10: r_ref 10.

    Step 2 adds 8 to prompt 0: r_ref (1 + 3 + 8) / 3 = 4, and it is full. Step 3: 4 whatever comes.
    """
    pipeline = SignalPipeline(PIPELINE)
    first = scores(pipeline, [1.0, 10.0, 3.0, 10.0], [0, 1, 0, 1])
    assert first.tolist() == pytest.approx([log_sigmoid(z) for z in (-1.0, 0.0, 1.0, 0.0)])
    assert scores(pipeline, [8.0, 8.0], [0, 1])[0].item() == pytest.approx(log_sigmoid(4.0))
    for _ in range(2):
        assert scores(pipeline, [99.0, 5.0], [0, 0]).tolist() == pytest.approx([log_sigmoid(95.0), log_sigmoid(1.0)])


def test_looking_stores_nothing_and_an_unknown_prompt_is_unscored():
    pipeline = SignalPipeline(PIPELINE)
    assert scores(pipeline, [1.0, 3.0], [0, 0], update=False).isnan().all()
    assert not pipeline.state_dict()
    scores(pipeline, [1.0, 3.0], [0, 0])
    before = pipeline.state_dict()
    assert scores(pipeline, [2.0, 2.0], [0, 4], update=False).isnan().tolist() == [False, True]
    assert all(torch.equal(value, before[name]) for name, value in pipeline.state_dict().items())


def test_a_checkpoint_goes_on_with_the_same_references():
    pipeline, resumed = SignalPipeline(PIPELINE), SignalPipeline(PIPELINE)
    scores(pipeline, [1.0, 10.0, 3.0, 10.0], [0, 1, 0, 1])
    resumed.load_state_dict(pipeline.state_dict())
    for _ in range(3):
        assert torch.equal(*(scores(one, [2.0, 8.0, 4.0], [0, 0, 1]) for one in (pipeline, resumed)))


def test_it_is_not_the_group_of_the_step():
    """One prompt in two steps, 0 2 and 4 4. With `group` 4 is its own reference; here it is (0 + 2 + 4 + 4) / 4."""
    by_group = SignalPipeline(PipelineConfig(transforms=(s.Lsc(reference=s.ReferenceGroup(q=0.5)),), base=DrGrpo()))
    by_prompt = SignalPipeline(PIPELINE)
    for pipeline in (by_group, by_prompt):
        scores(pipeline, [0.0, 2.0], [0, 0])
    assert scores(by_group, [4.0, 4.0], [0, 0]).tolist() == pytest.approx([log_sigmoid(0.0)] * 2)
    assert scores(by_prompt, [4.0, 4.0], [0, 0]).tolist() == pytest.approx([log_sigmoid(4.0 - 2.5)] * 2)


class TestBaselines:
    """A table of other samples is shaped like the rewards: same weights, statistics that stand still."""

    def test_by_hand(self):
        """Two rewards, weights 2 and 1, the first halved: scores 2 r_1 / 2 + r_2; so are the baselines."""
        config = PipelineConfig(transforms=(s.Affine(rewards=("a",), scale=0.5),), base=Remax(), clip=None)
        weights = torch.tensor([2.0, 1.0])
        own = RewardTable(names=("a", "b"), values=torch.tensor([[4.0, 1.0], [2.0, 0.0]]), weights=weights)
        other = RewardTable(names=("a", "b"), values=torch.tensor([[1.0, 1.0], [3.0, 2.0]]), weights=weights)
        signal = SignalPipeline(config)(own, torch.tensor([0, 0]), greedy_rewards=other)
        assert signal.scores.tolist() == [5.0, 2.0]
        assert signal.advantages.tolist() == [5.0 - 2.0, 2.0 - 5.0]

    def test_statistics_are_those_of_the_samples_and_do_not_move(self):
        """Running z-score of 1, 3 (mean 2, std sqrt 2): the baseline 2 is 0, whatever else it would do to the mean."""
        config = PipelineConfig(transforms=(s.ZScore(scope="running", eps=0.0),), base=Remax(), clip=None)
        pipeline = SignalPipeline(config)
        signal = pipeline(table([1.0, 3.0]), torch.tensor([0, 0]), greedy_rewards=table([2.0, 2.0]))
        assert signal.advantages.tolist() == pytest.approx([-(2**-0.5), 2**-0.5])
        assert pipeline.state_dict()["transforms.0.a.count"] == 2.0

    def test_a_baseline_without_a_score_is_no_baseline(self):
        signal = SignalPipeline(PipelineConfig(base=Remax()))(
            table([1.0, 3.0]), torch.tensor([0, 1]), greedy_rewards=table([math.nan, 2.0])
        )
        assert signal.advantages.tolist() == [0.0, 1.0]
