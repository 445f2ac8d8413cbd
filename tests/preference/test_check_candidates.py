"""Settings of `candidates` that cannot hold together, and that each says what to do."""

import pytest

from align.config.shaping import Clip, Lexicographic
from align.config.shared import RewardConfig
from preference.check_candidates import check_candidates
from preference.config import CandidatesConfig
from preference.config.candidates import AllPairs, Dominating


def rewards(*weights):
    return tuple(RewardConfig(function="brevity", name=f"r{i}", weight=weight) for i, weight in enumerate(weights))


TWO = rewards(1.0, 0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rewards": TWO},
        {"rewards": TWO, "pairs": Dominating(), "required": ("r1",)},
        {"rewards": rewards(1.0, 0.0), "pairs": AllPairs(min_margin=0.5)},
        {"per_prompt": 1, "temperature": 0.0},  # the student's answers of ADPA
        {"pairs": AllPairs()},  # rewards are named on the command line of `align score`
    ],
)
def test_what_goes_together(settings):
    assert list(check_candidates(CandidatesConfig(**settings))) == []


def test_a_run_without_candidates():
    assert list(check_candidates(None)) == []


@pytest.mark.parametrize(
    ("settings", "keys", "message", "way_out"),
    [
        ({"temperature": 0.0}, ("candidates.temperature", "candidates.per_prompt"), "4 answers", "per_prompt: 1"),
        ({"per_prompt": 1, "rewards": TWO}, ("candidates.per_prompt", "candidates.rewards"), "one answer", "2 or more"),
        (
            {"rewards": rewards(1.0, 0.0), "pairs": Dominating()},
            ("candidates.pairs.kind", "candidates.rewards"),
            "`r0` is the only one",
            "kind: all",
        ),
        ({"required": ("r1",)}, ("candidates.required", "candidates.rewards"), "there is none", "Add them"),
        (
            {"combine": Lexicographic(order=("r1", "r0"))},
            ("candidates.combine", "candidates.rewards"),
            "`candidates.combine` says",
            "remove the setting",
        ),
        ({"rewards": rewards(0.0)}, ("candidates.rewards.0.weight",), "every reward has weight 0", "other than 0"),
        (
            {"rewards": (*rewards(1.0), *rewards(1.0))},
            ("candidates.rewards.0", "candidates.rewards.1"),
            "2 rewards are called `r0`",
            "its own `name:`",
        ),
        ({"rewards": TWO, "required": ("r3",)}, ("candidates.required.0",), "`candidates.required.0` names", "r0, r1"),
        (
            {"rewards": rewards(1.0, -1.0)},
            ("candidates.rewards.1.weight", "candidates.combine"),
            "is negative",
            "`candidates.transforms",
        ),
        ({"rewards": TWO, "transforms": (Clip(),)}, ("candidates.transforms.0",), "needs `low`", ""),
    ],
)
def test_what_does_not(settings, keys, message, way_out):
    (problem,) = check_candidates(CandidatesConfig(**settings))
    assert problem.keys == keys
    assert message in problem.message
    assert way_out in problem.way_out
    assert "pipeline" not in problem.message + problem.way_out
