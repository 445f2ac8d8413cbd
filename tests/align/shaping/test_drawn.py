"""`weights: {kind: drawn_direction}`: one unit vector for each group, by hand."""

import pytest
import torch

from align.config.group_relative import Grpo
from align.config.needs import needs_of
from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, DrawnDirection
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

GROUPS = torch.tensor([7, 7, 9, 9])
CONFIG = PipelineConfig(
    weights=DrawnDirection(), combine=Directional(), base=Grpo(scale="none"), clip=None, transforms=()
)


def table(weights=(2.0, 5.0, 0.0)):
    """Two objectives and a metric. How large a weight is does not matter."""
    values = torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0], [1.0, 0.0, 9.0], [0.0, 1.0, 9.0]])
    return RewardTable(names=("good", "short", "seen"), values=values, weights=torch.tensor(weights))


def test_scores_are_projections_on_each_groups_own_direction():
    """Group 7 asks for (0.8, 0.6): scores 0.8, 0.6, advantages +-0.1. Group 9 for (0.6, -0.8): 0.6, -0.8, +-0.7."""
    drawn = {"good": torch.tensor([0.8, 0.8, 0.6, 0.6]), "short": torch.tensor([0.6, 0.6, -0.8, -0.8])}
    signal = SignalPipeline(CONFIG)(table(), GROUPS, drawn_directions=drawn)
    assert signal.scores.tolist() == pytest.approx([0.8, 0.6, 0.6, -0.8])
    assert signal.advantages.tolist() == pytest.approx([0.1, -0.1, 0.7, -0.7])
    assert signal.stats["weights/good"] == pytest.approx(0.7)


def test_a_pipeline_says_that_it_needs_directions():
    assert ("drawn_directions",) in [need.fields for need in needs_of(CONFIG)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"expects a drawn direction of good, short for each row .* found none"),
        ({"drawn_directions": {"good": torch.ones(4)}}, "found good"),
        (
            {"drawn_directions": {"good": torch.tensor([1.0, 0.0, 1.0, 1.0]), "short": torch.ones(4)}},
            "differs between the samples",
        ),
    ],
)
def test_directions_that_do_not_fit(inputs, message):
    with pytest.raises(ValueError, match=message):
        SignalPipeline(CONFIG)(table(), GROUPS, **inputs)
