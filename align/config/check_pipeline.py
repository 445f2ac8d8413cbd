"""Contradictions between the rewards of a run and its pipeline; found before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

from align.adapter.record import find_adapter, read_record
from align.config.checks import reward_name
from align.config.errors import Problem
from align.config.needs import check_needs
from align.config.pipeline import PipelineConfig
from align.config.shaping import (
    AdapterWeights,
    Clip,
    ConstraintWeights,
    DirectionWeights,
    FixedWeights,
    Gate,
    Lexicographic,
    ScheduledWeights,
    WeightedSum,
)
from align.config.shaping.combine import takes_negative
from align.config.shared import RewardConfig
from align.errors import AlignError, did_you_mean

NAMES = {"rewards", "reward", "on", "length", "gate", "column", "columns", "order", "required"}
"""Settings that hold names of rewards, wherever they stand in the pipeline."""


def check_pipeline(
    rewards: Sequence[RewardConfig], pipeline: PipelineConfig, provided: Iterable[str] | None = None
) -> Iterator[Problem]:
    """A reward that is named and is not there, weights of the wrong sign, a transform without its numbers, an estimator
    without what it reads.

    Args:
        rewards: of the run.
        pipeline: what is made of them.
        provided: fields of `AdvantageInputs` that a rollout of this branch can bring; None = nobody knows yet.
    """
    known = [reward_name(reward) for reward in rewards]
    inputs = ((f"pipeline.inputs.{field}", name) for field, name in pipeline.inputs.items())
    for key, name in chain(_named(pipeline, "pipeline"), inputs):
        if name not in known:
            yield Problem(
                keys=(key,),
                message=f"`{key}` names a reward `{name}`, which there is not.{did_you_mean(name, known)}",
                way_out=f"The rewards are {', '.join(known) or 'none'}; a reward of weight 0 is a metric and will do.",
            )
    yield from _check_direction(pipeline)
    yield from _check_signs(rewards, pipeline)
    yield from _check_adapter(rewards, pipeline)
    for number, transform in enumerate(pipeline.transforms):
        if isinstance(transform, Clip) and transform.low is transform.high is transform.stds is None:
            yield _incomplete(f"pipeline.transforms.{number}", "`clip` needs `low`, `high` or `stds`")
        if isinstance(transform, Gate) and transform.at_least is transform.at_most is None:
            yield _incomplete(f"pipeline.transforms.{number}", "`gate` needs `at_least` or `at_most`")
    combine = pipeline.combine
    if isinstance(combine, Lexicographic) and len(combine.tolerances) not in (0, len(combine.order)):
        yield _incomplete("pipeline.combine.tolerances", f"there are {len(combine.order)} rewards in `order`")
    if provided is not None:
        yield from check_needs(pipeline, provided)


def _named(section: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every place under a section that names a reward, and the name (Any: walks dataclasses and tuples)."""
    for item in fields(section):
        value, here = getattr(section, item.name), f"{key}.{item.name}"
        values = value if isinstance(value, tuple) else (value,)
        for number, entry in enumerate(values):
            place = f"{here}.{number}" if isinstance(value, tuple) else here
            if is_dataclass(entry) and not isinstance(entry, type):
                yield from _named(entry, place)
            elif item.name in NAMES and isinstance(entry, str):
                yield place, entry


def _check_direction(pipeline: PipelineConfig) -> Iterator[Problem]:
    """A direction without length, or without an end."""
    weights = pipeline.weights
    if not isinstance(weights, DirectionWeights):
        return
    values = [component.value for component in weights.components]
    if not any(values) or not all(math.isfinite(value) for value in values):
        found = ", ".join(f"{component.reward} {component.value:g}" for component in weights.components)
        yield Problem(
            keys=("pipeline.weights.components",),
            message=f"a direction needs a finite component other than 0, found {found or 'none'}.",
            way_out="Say what to prefer, such as `[{reward: relevance, value: 0.8}, {reward: brevity, value: 0.6}]`.",
        )


def _check_signs(rewards: Sequence[RewardConfig], pipeline: PipelineConfig) -> Iterator[Problem]:
    """Negative weights are for directions, or for who says so."""
    combine = pipeline.combine
    if takes_negative(combine):
        return
    way_out = "For a cost, turn the reward round: `pipeline.transforms: [{kind: affine, scale: -1, rewards: [...]}]`."
    if isinstance(combine, WeightedSum):
        way_out += " Or set `pipeline.combine.allow_negative: true`, or `pipeline.combine.kind: directional`."
    for key, value in _signed(rewards, pipeline):
        if value < 0:
            message = f"`{key}` is negative ({value:g}), but `combine: {combine.kind}` takes no such weight."
            yield Problem(keys=(key, "pipeline.combine"), message=message, way_out=way_out)


def _signed(rewards: Sequence[RewardConfig], pipeline: PipelineConfig) -> Iterator[tuple[str, float]]:
    """The settings that are weights as they stand: not those that a ramp or a constraint replaces, and no metrics of
    a direction or an order."""
    weights = pipeline.weights
    if isinstance(weights, DirectionWeights):
        for number, component in enumerate(weights.components):
            yield f"pipeline.weights.components.{number}.value", component.value
    if isinstance(pipeline.combine, Lexicographic):
        return
    replaced: set[str] = set()
    if isinstance(weights, ScheduledWeights):
        replaced = {ramp.reward for ramp in weights.ramps}
    elif isinstance(weights, ConstraintWeights):
        replaced = {constraint.reward for constraint in weights.constraints}
    elif not isinstance(weights, FixedWeights):
        return
    for number, reward in enumerate(rewards):
        if reward_name(reward) not in replaced:
            yield f"rewards.{number}.weight", reward.weight


def _check_adapter(rewards: Sequence[RewardConfig], pipeline: PipelineConfig) -> Iterator[Problem]:
    """An adapter that is not there, of other objectives, or anchored to negative weights."""
    weights = pipeline.weights
    if not isinstance(weights, AdapterWeights):
        return
    trained = [(number, reward) for number, reward in enumerate(rewards) if reward.weight != 0]
    try:
        record = read_record(weights.path)
        record.check_objectives([reward_name(reward) for _, reward in trained], find_adapter(weights.path))
    except AlignError as error:
        keys = ("pipeline.weights.path", *(f"rewards.{number}.weight" for number, _ in trained))
        yield Problem(keys=keys, message=error.message, way_out=error.way_out)
    for number, reward in trained:
        if reward.weight < 0:
            key = f"rewards.{number}.weight"
            message = f"`{key}` is negative ({reward.weight:g}), but an adapter's weights are shares of 1."
            way_out = "Turn a cost round: `pipeline.transforms: [{kind: affine, scale: -1, rewards: [...]}]`."
            yield Problem(keys=(key, "pipeline.weights"), message=message, way_out=way_out)


def _incomplete(key: str, message: str) -> Problem:
    return Problem(keys=(key,), message=f"`{key}`: {message}.", way_out="Set it, or leave the whole entry out.")
