"""What the estimators of a pipeline read beside scores and groups, and whether anybody brings it. Torch-free.

A rollout asks `needs_of` what it has to collect; the checks before a run ask whether it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from align.config.declarations import declaration_of
from align.config.errors import Problem
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights, DrawnDirection, Lsc, ReferencePrompt
from align.config.shaping.relative import compares_samples
from align.errors import did_you_mean

FROM_REWARD: Mapping[str, Callable[[Any], Any]] = {  # Any: tensors, of which nothing here knows
    "metric": lambda values: values,
    "greedy_rewards": lambda values: values,
    "reference_rewards": lambda values: values,
    "correct": lambda values: values > 0,  # NaN is not correct
    "user_groups": lambda values: values.nan_to_num(nan=-1.0).round().long(),  # a few small numbers; NaN is nobody
}
"""Inputs that a reward column can be, and how."""
ALWAYS = ("rewards", "group_ids", "prompt_ids", "advantages")
"""Inputs that every pipeline has: the prompts are named by their groups if by nothing better."""
BASELINES = ("greedy_rewards", "reference_rewards", "done_reward_seq")
"""Inputs that are compared with the scores, so that they must be shaped like them."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One of these fields must be there.

    Attributes:
        key: where the settings ask for it.
        kind: who needs it.
        fields: alternatives, the first one that can be had is taken.
    """

    key: str
    kind: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(f"`{name}`" for name in self.fields)


def needs_of(pipeline: PipelineConfig) -> tuple[Need, ...]:
    """Everything that transforms, base and shapers read and that no reward fills (`pipeline.inputs`).

    Fields that every batch has are not among them, with one exception: `prompt_ids`, because numbers that are the same
    in every step are better than `group_ids`.
    """
    needs = [
        Need(key=f"pipeline.transforms.{number}.reference", kind="prompt", fields=("prompt_ids",))
        for number, transform in enumerate(pipeline.transforms)
        if isinstance(transform, Lsc) and isinstance(transform.reference, ReferencePrompt)
    ]
    if isinstance(pipeline.weights, AdapterWeights):
        needs.append(Need(key="pipeline.weights", kind="adapter", fields=("prompt_weights",)))
    if isinstance(pipeline.weights, DrawnDirection):
        needs.append(Need(key="pipeline.weights", kind="drawn_direction", fields=("drawn_directions",)))
    stages = [("pipeline.base", pipeline.base)]
    stages += [(f"pipeline.shapers.{number}", shaper) for number, shaper in enumerate(pipeline.shapers)]
    for key, options in stages:
        declared = declaration_of(type(options))
        alternatives = [(name,) for name in declared.needs(options)] + list(declared.requires_any)
        needs += [Need(key=key, kind=options.kind, fields=fields) for fields in alternatives]
    there = {"rewards", "group_ids", "advantages", *pipeline.inputs}
    return tuple(need for need in needs if not there.intersection(need.fields))


def unmet(needs: Iterable[Need], provided: Iterable[str]) -> list[Need]:
    """Needs that nobody meets.

    Args:
        needs: of a pipeline.
        provided: fields of `AdvantageInputs` that a rollout can bring. A mask has lengths.
    """
    there = {*ALWAYS, *provided}
    there |= {"lengths"} if "mask" in there else set()
    return [need for need in needs if not there.intersection(need.fields)]


def explain(missing: Iterable[Need], provided: Iterable[str]) -> tuple[str, str]:
    """What is missing and what is there, and the way out."""
    by_kind: dict[str, list[str]] = {}
    for need in missing:
        by_kind.setdefault(need.kind, []).append(str(need))
    needs = "; ".join(f"{kind} needs {', '.join(fields)}" for kind, fields in by_kind.items())
    brought = ", ".join(dict.fromkeys((*ALWAYS[:-1], *provided)))
    return (
        f"{needs}. A rollout here brings: {brought}.",
        f"Choose an estimator that does without, or fill one of {', '.join(FROM_REWARD)} from a reward: "
        "`pipeline.inputs: {metric: my_reward}`.",
    )


def check_needs(pipeline: PipelineConfig, provided: Iterable[str]) -> Iterator[Problem]:
    """Inputs that a rollout cannot bring, that no reward can be, or that could not be compared with the scores.

    Args:
        pipeline: transforms, base, shapers, and the inputs that rewards fill.
        provided: fields of `AdvantageInputs` that a rollout of this branch can bring.
    """
    provided = tuple(provided)
    for name in pipeline.inputs:
        if name not in FROM_REWARD:
            message = f"`pipeline.inputs` cannot fill `{name}` from a reward.{did_you_mean(name, FROM_REWARD)}"
            way_out = f"Possible: {', '.join(FROM_REWARD)}."
            yield Problem(keys=(f"pipeline.inputs.{name}",), message=message, way_out=way_out)
    needs = needs_of(pipeline)
    missing = unmet(needs, provided)
    if missing:
        message, way_out = explain(missing, provided)
        yield Problem(keys=tuple(dict.fromkeys(need.key for need in missing)), message=message, way_out=way_out)
    yield from _check_baselines(pipeline, needs)


def _check_baselines(pipeline: PipelineConfig, needs: Iterable[Need]) -> Iterator[Problem]:
    """Rewards of other pictures or texts have the unit of the scores only if each is shaped by itself."""
    baselines = [need for need in needs if set(need.fields).intersection(BASELINES)]
    stages: list[tuple[str, Any]] = [
        (f"pipeline.transforms.{number}", stage) for number, stage in enumerate(pipeline.transforms)
    ]
    stages.append(("pipeline.combine", pipeline.combine))
    relative = [(key, stage) for key, stage in stages if compares_samples(stage)]
    if baselines and relative:
        names = ", ".join(f"`{stage.kind}`" for _, stage in relative)
        yield Problem(
            keys=(baselines[0].key, *(key for key, _ in relative)),
            message=(
                f"{baselines[0].kind} compares each score with those of others ({baselines[0]}), but {names} "
                "makes scores by comparing the samples of a batch with each other: the two have no common unit."
            ),
            way_out=(
                "Shape each reward by itself (affine, tanh, clip with `low` and `high`, lsc with a reference of its "
                "own, zscore with `scope: running`), or choose another base."
            ),
        )
