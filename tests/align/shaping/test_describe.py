"""The weights that a step has used, in the log: by reward, and by class of prompts where these differ."""

import math

import pytest
import torch

from align.config import shaping as s
from align.config.pipeline import PipelineConfig
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

IDS = torch.tensor([0, 0, 1, 1])
BY_PROMPT = s.PromptWeights(
    columns=(s.ColumnWeight(reward="a", column="wa"), s.ColumnWeight(reward="b", column="wb")),
)


def weights_of(table, config=None, **options):
    stats = SignalPipeline(config or PipelineConfig())(table, IDS, **options).stats
    return {name: value for name, value in stats.items() if name.startswith("weights/")}


def fixed(*weights):
    values = torch.rand(4, len(weights), generator=torch.Generator().manual_seed(0))
    return RewardTable(names=("a", "b", "c")[: len(weights)], values=values, weights=torch.tensor(weights))


def by_prompt(first, second):
    """Rewards a and b, and their weights for the two prompts."""
    given = torch.tensor([first, first, second, second])
    values = torch.cat([torch.rand(4, 2, generator=torch.Generator().manual_seed(0)), given], dim=1)
    return RewardTable(names=("a", "b", "wa", "wb"), values=values, weights=torch.tensor([1.0, 1.0, 0.0, 0.0]))


def test_fixed_weights_of_several_rewards_are_logged():
    """Entropy of (3/4, 1/4): 0.75 log(4/3) + 0.25 log 4 = 0.5623. The metric c has no weight to tell of."""
    found = weights_of(fixed(3.0, 1.0, 0.0), classes=["x", "x", "y", "y"])
    assert found == {"weights/a": 3.0, "weights/b": 1.0, "weights/entropy": pytest.approx(0.562335, abs=1e-6)}


def test_a_single_reward_needs_no_line():
    assert weights_of(fixed(1.0, 0.0)) == {}


def test_classes_that_differ():
    """The first prompt weighs (0.8, 0.2), the second (0.4, 0.6): means (0.6, 0.4)."""
    config = PipelineConfig(weights=BY_PROMPT)
    found = weights_of(by_prompt([0.8, 0.2], [0.4, 0.6]), config, classes=["ocr", "ocr", "style", "style"])
    del found["weights/entropy"]
    assert found == pytest.approx(
        {
            "weights/a": 0.6, "weights/ocr/a": 0.8, "weights/style/a": 0.4,
            "weights/b": 0.4, "weights/ocr/b": 0.2, "weights/style/b": 0.6,
        }
    )  # fmt: skip


def test_classes_that_do_not_differ_have_no_lines_of_their_own():
    config = PipelineConfig(weights=BY_PROMPT)
    same = by_prompt([0.5, 0.5], [0.5, 0.5])
    expected = {"weights/a": 0.5, "weights/b": 0.5, "weights/entropy": pytest.approx(math.log(2))}
    assert weights_of(same, config, classes=["x", "x", "y", "y"]) == expected
    assert weights_of(by_prompt([0.8, 0.2], [0.4, 0.6]), config).keys() == expected.keys()


def test_prompts_without_a_class_count_in_the_mean_only():
    config = PipelineConfig(weights=BY_PROMPT)
    found = weights_of(by_prompt([0.8, 0.2], [0.4, 0.6]), config, classes=["ocr", "ocr", "", ""])
    assert {name for name in found if name.count("/") > 1} == {"weights/ocr/a", "weights/ocr/b"}
