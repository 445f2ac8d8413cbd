"""Contradictions of the section `candidates`: what is sampled, scored and paired cannot be what its settings say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import chain

from align.config.check_pipeline import check_pipeline
from align.config.checks import check_rewards, reward_name
from align.config.errors import Problem
from align.config.pipeline import PipelineConfig
from preference.config import CandidatesConfig
from preference.config.candidates import Dominating

SECTION = "candidates"
SHAPING = ("transforms", "weights", "required", "combine")
"""Settings that make one score of several rewards."""


def check_candidates(candidates: CandidatesConfig | None) -> Iterator[Problem]:
    """Every contradiction of the section; a run without it has none."""
    if candidates is None:
        return
    yield from _check_sampling(candidates)
    if not candidates.rewards:
        yield from _check_unscored(candidates)
        return
    yield from _check_pairs(candidates)
    for problem in chain(check_rewards(candidates.rewards), check_pipeline(candidates.rewards, candidates.shaping())):
        yield _within(problem)


def _check_sampling(candidates: CandidatesConfig) -> Iterator[Problem]:
    """Answers that are all the same."""
    if candidates.temperature == 0 and candidates.per_prompt > 1:
        yield Problem(
            keys=("candidates.temperature", "candidates.per_prompt"),
            message=(
                f"at temperature 0 the likeliest token is taken each time: the {candidates.per_prompt} answers to a "
                "prompt would be equal."
            ),
            way_out="Set `candidates.temperature` to, say, 0.8, or `candidates.per_prompt: 1`.",
        )


def _check_unscored(candidates: CandidatesConfig) -> Iterator[Problem]:
    """Settings of a score, and nothing that scores."""
    usual = CandidatesConfig()
    used = [name for name in SHAPING if getattr(candidates, name) != getattr(usual, name)]
    if used:
        yield Problem(
            keys=(*(f"candidates.{name}" for name in used), "candidates.rewards"),
            message=f"`candidates.{used[0]}` says what becomes of rewards, but there is none in `candidates.rewards`.",
            way_out="Add them, for example `candidates.rewards: [{function: brevity}]`, or remove the setting.",
        )


def _check_pairs(candidates: CandidatesConfig) -> Iterator[Problem]:
    """Rewards that tell answers apart, and pairs that they can make."""
    if candidates.per_prompt < 2:
        yield Problem(
            keys=("candidates.per_prompt", "candidates.rewards"),
            message="a prompt has one answer, so no two can be compared: the rewards would make no pair.",
            way_out="Set `candidates.per_prompt` to 2 or more, or remove `candidates.rewards`.",
        )
    weighted = [reward_name(reward) for reward in candidates.rewards if reward.weight]
    if isinstance(candidates.pairs, Dominating) and len(weighted) == 1:
        yield Problem(
            keys=("candidates.pairs.kind", "candidates.rewards"),
            message=f"`dominating` compares several rewards, and `{weighted[0]}` is the only one with a weight.",
            way_out="Use `candidates.pairs: {kind: all}`, the same with one reward, or weigh a second.",
        )


def _within(problem: Problem) -> Problem:
    """The problem of a run's `rewards` and `pipeline` as one of this section, which holds the fields of both."""
    keys = tuple(_renamed(key) for key in problem.keys)
    message, way_out = problem.message, problem.way_out
    for name in ("rewards", *(f"pipeline.{item.name}" for item in fields(PipelineConfig))):
        message, way_out = (text.replace(f"`{name}", f"`{_renamed(name)}") for text in (message, way_out))
    return replace(problem, keys=keys, message=message, way_out=way_out)


def _renamed(key: str) -> str:
    return f"{SECTION}.{key.removeprefix('pipeline.')}"
