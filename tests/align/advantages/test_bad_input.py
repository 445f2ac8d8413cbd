"""Whatever a caller can get wrong is a ValueError that says what was expected, what was found, and what to do.

One row per mistake of the list in the tests' names; each message is asked for all three parts.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import find, make_options
from align.config.pipeline import PipelineConfig
from align.objectives.units import check_same_shape
from align.shaping import combine
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

from .rollouts import rollouts

IDS = torch.tensor([0, 0, 1, 1])
REWARDS = torch.tensor([0.0, 1.0, 0.5, 1.0])
VALUES = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [1.0, 1.0]])


def batch(**fields) -> AdvantageInputs:
    return AdvantageInputs(**{"rewards": REWARDS, "group_ids": IDS, **fields})


def of_table(weights: Tensor, values: Tensor = VALUES):
    table = RewardTable(names=("ocr", "style"), values=values, weights=weights)
    return SignalPipeline(PipelineConfig())(table, torch.zeros(len(values), dtype=torch.int64))


MISTAKES = {
    "fewer ids than rewards": (
        lambda: batch(group_ids=torch.tensor([0, 0, 1])),
        ("one row per sample", "`group_ids` has 3 rows for 4 rewards", "gather all of them"),
    ),
    "positions that disagree": (
        lambda: batch(mask=torch.ones(4, 3), logprobs=torch.ones(4, 5)),
        ("disagree on the number of positions", r"`mask` \[3\], `logprobs` \[5\]", "Pad all of them"),
    ),
    "unknown kind": (
        lambda: estimate("rlooo", batch()),
        ("no advantage estimator 'rlooo'", "Did you mean `rloo`", "Available: "),
    ),
    "short name of several papers": (
        lambda: estimate("hapo", batch()),
        ("no advantage estimator 'hapo'", "Did you mean `hapo_token_group`", "Available: "),
    ),
    "option that a kind does not use": (
        lambda: estimate("rloo", batch(), scale="batch"),
        ("`scale` is not an option of rloo", "Options: singleton"),
    ),
    "misspelt option": (
        lambda: estimate("grpo", batch(), scle="batch"),
        ("`scle` is not an option of grpo", "Did you mean `scale`", "Options: "),
    ),
    "option of the wrong value": (
        lambda: estimate("grpo", batch(), eps=-1.0),
        ("`eps`", "greater than or equal to 0", "found -1.0"),
    ),
    "float ids": (
        lambda: batch(group_ids=IDS.double()),
        ("must be integers", "found torch.float64", "build them as int64"),
    ),
    "float keys": (
        lambda: batch(mask=torch.ones(4, 2), token_ids=torch.ones(4, 2)),
        ("`token_ids` must be integers", "found torch.float32", "as int64"),
    ),
    "infinite reward": (
        lambda: estimate("grpo", batch(rewards=torch.tensor([0.0, math.inf, 0.0, 1.0]))),
        ("must be a finite number", "reward of sample 1 is infinite", "use nan"),
    ),
    "several rewards for one": (
        lambda: estimate("rloo", batch(rewards=VALUES)),
        ("one reward per sample", r"found \[4, 2\]", "Combine the columns first"),
    ),
    "missing field": (
        lambda: estimate("canon", batch()),
        ("canon needs `metric`", "Given: rewards, group_ids", "choose an estimator that does without"),
    ),
    "group of one where two are needed": (
        lambda: estimate("grpo", batch(group_ids=torch.tensor([0, 0, 0, 8])), singleton="error"),
        ("at least 2 scored samples", r"groups \[8\] have fewer", "Raise `rollout.group_size`"),
    ),
    "negative weight": (
        lambda: combine.weighted_sum(VALUES, torch.tensor([1.0, -1.0])),
        ("negative", "-1", "allow_negative"),
    ),
    "weight that is not finite": (
        lambda: combine.weighted_sum(VALUES, torch.tensor([1.0, math.nan])),
        ("finite", "nan"),
    ),
    "infinite weight": (
        lambda: combine.weighted_sum(VALUES, torch.tensor([1.0, math.inf])),
        ("finite", "inf"),
    ),
    "fewer weights than rewards": (
        lambda: combine.weighted_sum(VALUES, torch.tensor([1.0])),
        ("weight", r"\[1\]|1 weight", "2"),
    ),
    "negative weight in a table": (
        lambda: of_table(torch.tensor([1.0, -2.0])),
        ("negative", "-2", "allow_negative"),
    ),
    "weights all 0": (
        lambda: of_table(torch.tensor([0.0, 0.0])),
        ("nothing to learn from", r"ocr, style", "Give one of them a weight"),
    ),
    "empty table": (
        lambda: of_table(torch.tensor([1.0, 1.0]), VALUES[:0]),
        ("sample", "empty|no rows|0"),
    ),
    "mask of shares": (
        lambda: rollouts(REWARDS, IDS, mask=torch.full((4, 6), 0.5)),
        ("`mask` must be 0 and 1", "found 0.5", "1 marks"),
    ),
    "mask of nan": (
        lambda: rollouts(REWARDS, IDS, mask=torch.full((4, 6), math.nan)),
        ("`mask` must be 0 and 1", "found nan"),
    ),
    "rewards in a list": (
        lambda: AdvantageInputs(rewards=[1.0, 0.0]),
        ("must be a tensor", "found a list", r"torch.tensor\(\[...\]\)"),
    ),
    "infinite weight of an option": (
        lambda: estimate(
            "bnpo", AdvantageInputs(rewards=VALUES, group_ids=IDS[: len(VALUES)]), weights=(1.0, math.inf)
        ),
        ("`weights.1`", "finite", "inf"),
    ),
    "losses and mask of different shape": (
        lambda: check_same_shape(per_token=torch.zeros(2, 3), mask=torch.zeros(2, 4)),
        (r"`per_token` \[2, 3\], `mask` \[2, 4\]", "Cut or pad"),
    ),
    "clip of 0": (
        lambda: SignalPipeline(PipelineConfig(clip=0.0)),
        ("must be above 0", "found 0", "`null` switches clipping off"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_a_way_out(mistake):
    call, parts = MISTAKES[mistake]
    for part in parts:
        with pytest.raises(ValueError, match=part):
            call()


@pytest.mark.parametrize("kind", available())
def test_an_empty_batch(kind):
    inputs = rollouts(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expects at least one sample, found an empty batch\. .*nan as its reward"):
        estimate(kind, inputs)


@pytest.mark.parametrize("kind", available())
def test_a_mask_with_no_valid_position(kind):
    inputs = rollouts(REWARDS, IDS, mask=torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"`mask` has no position that is trained.*of 4 samples.*is the mask inverted"):
        estimate(kind, inputs)


@pytest.mark.parametrize("kind", [k for k in available() if "singleton" in find(k).option_names()])
def test_a_group_of_one_where_the_method_needs_two(kind):
    """Kinds whose formula has a value for one sample have no `error`."""
    entry = find(kind)
    inputs = rollouts(REWARDS, torch.tensor([0, 0, 0, 8]))
    if entry.min_group < 2:
        with pytest.raises(ValueError, match="singleton"):
            make_options(entry, {"singleton": "error"})
        return
    with pytest.raises(ValueError, match=r"needs at least 2 scored samples in each group; groups \[8\].*group_size"):
        estimate(kind, inputs, singleton="error")
