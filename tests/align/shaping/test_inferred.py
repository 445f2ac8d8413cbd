"""Weights that an adapter has inferred, in the pipeline: by hand, anchored, one vector per prompt, in any order."""

import math

import pytest
import torch
from torch.testing import assert_close

from align.config.group_relative import DrGrpo
from align.config.needs import check_needs
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights, ZScore
from align.pairs import all_pairs, pairs_by_prompt_weights
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

IDS = torch.tensor([0, 0, 1, 1])
VALUES = torch.tensor([[1.0, 0.0, 7.0], [0.0, 1.0, 7.0], [1.0, 0.0, 7.0], [0.0, 1.0, 7.0]])
TABLE = RewardTable(names=("good", "short", "metric"), values=VALUES, weights=torch.tensor([1.0, 3.0, 0.0]))
INFERRED = {"short": torch.tensor([0.2, 0.2, 0.9, 0.9]), "good": torch.tensor([0.8, 0.8, 0.1, 0.1])}


def pipeline(anchor=0.0, **more):
    return SignalPipeline(
        PipelineConfig(weights=AdapterWeights(path="adapter", anchor=anchor), base=DrGrpo(), clip=None, **more)
    )


def test_each_prompt_has_its_own_winner_by_hand():
    """Scores 0.8 and 0.2 for the first prompt, 0.1 and 0.9 for the second; the metric does not count."""
    signal = pipeline()(TABLE, IDS, prompt_weights=INFERRED)
    assert_close(signal.scores, torch.tensor([0.8, 0.2, 0.1, 0.9]))
    assert_close(signal.advantages, torch.tensor([0.3, -0.3, -0.4, 0.4]))
    assert signal.stats["weights/good"] == pytest.approx(0.45)
    assert "weights/metric" not in signal.stats


def test_the_anchor_mixes_the_users_weights_in_by_hand():
    """User (1, 3)/4 = (0.25, 0.75); half and half with (0.8, 0.2): (0.525, 0.475). Share 1 is exactly the user's."""
    assert_close(pipeline(0.5)(TABLE, IDS, prompt_weights=INFERRED).scores[:2], torch.tensor([0.525, 0.475]))
    assert pipeline(1.0)(TABLE, IDS, prompt_weights=INFERRED).scores.tolist() == [0.25, 0.75, 0.25, 0.75]


def test_weights_multiply_normalised_rewards_on_the_decoupled_path():
    """z-scores of two samples are +-1/sqrt(2): 0.8 - 0.2 = 0.6 of it for the first prompt, 0.1 - 0.9 for the second."""
    signal = pipeline(transforms=(ZScore(eps=0.0),))(TABLE, IDS, prompt_weights=INFERRED)
    z = 1 / math.sqrt(2)
    assert_close(signal.scores, torch.tensor([0.6, -0.6, -0.8, 0.8]) * z)


def test_no_gradient_flows_and_nothing_is_kept():
    weights = {name: column.clone().requires_grad_(True) for name, column in INFERRED.items()}
    made = pipeline()
    assert not made(TABLE, IDS, prompt_weights=weights).scores.requires_grad
    assert not [name for name in made.state_dict() if name.startswith("weights.")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"expects inferred weights of good, short for each row .* found none"),
        ({"prompt_weights": {"good": torch.ones(4)}}, "found good"),
        ({"prompt_weights": {**INFERRED, "tone": torch.ones(4)}}, "found short, good, tone"),
        ({"prompt_weights": {**INFERRED, "good": torch.tensor([0.8, 0.1, 0.5, 0.5])}}, "differs between the samples"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        pipeline()(TABLE, IDS, **given)


def test_a_branch_that_infers_no_weights_says_so():
    config = PipelineConfig(weights=AdapterWeights(path="adapter"))
    (problem,) = check_needs(config, ("prompt_ids",))
    assert problem.keys == ("pipeline.weights",)
    assert "adapter needs `prompt_weights`" in problem.message
    assert not list(check_needs(config, ("prompt_weights",)))


def test_weights_decide_which_of_two_answers_is_chosen():
    """Margins 0.6 and 0.8 by hand, and the winner differs between the prompts."""
    weights = torch.stack([INFERRED["good"], INFERRED["short"]], dim=1)
    for make in ({}, {"make": all_pairs}):
        pairs = pairs_by_prompt_weights(VALUES[:, :2], weights, IDS, **make)
        assert (pairs.chosen.tolist(), pairs.rejected.tolist()) == ([0, 3], [1, 2])
        assert_close(pairs.margin, torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert len(pairs_by_prompt_weights(VALUES[:, :2], weights, IDS, min_margin=0.7)) == 1
    with pytest.raises(ValueError, match="differs between the samples"):
        pairs_by_prompt_weights(VALUES[:, :2], VALUES[:, :2], IDS)
    with pytest.raises((ValueError, TypeError), match=r"expected a weight for each reward|Type-check"):
        pairs_by_prompt_weights(VALUES, weights, IDS)
