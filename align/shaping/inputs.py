"""What the estimators of a pipeline read beside scores and groups: where it comes from, and whether it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from align.advantages.registry import find
from align.config.pipeline import PipelineConfig
from align.errors import did_you_mean
from align.shaping.table import Columns

FROM_REWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "metric": lambda values: values,
    "greedy_rewards": lambda values: values,
    "reference_rewards": lambda values: values,
    "correct": lambda values: values > 0,  # NaN is not correct
}
"""Inputs that a reward column can be, and how."""
ALWAYS = ("rewards", "group_ids", "prompt_ids", "advantages")
"""Inputs that every pipeline has: the prompts are named by their groups if by nothing better."""


def inputs_from_rewards(sources: Mapping[str, str], columns: Columns) -> dict[str, Tensor]:
    """Fields of `AdvantageInputs` read from reward columns.

    Args:
        sources: `pipeline.inputs`: field -> name of the reward; weight 0 makes that reward an input only.
        columns: all rewards of the step.
    """
    return {name: FROM_REWARD[name](columns.column(reward)) for name, reward in sources.items()}


def check_sources(sources: Mapping[str, str]) -> None:
    """Raise a ValueError unless rewards can be these inputs."""
    for name in sources:
        if name not in FROM_REWARD:
            raise ValueError(
                f"`pipeline.inputs` cannot fill `{name}` from a reward.{did_you_mean(name, FROM_REWARD)} "
                f"Possible: {', '.join(FROM_REWARD)}."
            )


def missing_inputs(config: PipelineConfig, collected: Iterable[str]) -> dict[str, list[str]]:
    """Kind of each stage that would fail -> what it needs and nobody collects.

    Args:
        config: base and shapers, and the inputs that rewards fill.
        collected: fields of `AdvantageInputs` that a rollout brings.
    """
    there = {*ALWAYS, *config.inputs, *collected}
    there |= {"lengths"} if "mask" in there else set()
    missing: dict[str, list[str]] = {}
    for options in (config.base, *config.shapers):
        entry = find(options.kind)
        lacking = [name for name in entry.needs(options) if name not in there]
        lacking += [" or ".join(names) for names in entry.requires_any if not there.intersection(names)]
        if lacking:
            missing[options.kind] = lacking
    return missing


def check_collected(config: PipelineConfig, collected: Iterable[str]) -> None:
    """Raise a ValueError at the start of a run whose rollout does not bring what the estimators need."""
    collected = tuple(collected)
    missing = missing_inputs(config, collected)
    if missing:
        needs = "; ".join(f"{kind} needs {', '.join(f'`{name}`' for name in names)}" for kind, names in missing.items())
        brought = ", ".join(dict.fromkeys((*ALWAYS[:-1], *collected)))
        raise ValueError(
            f"{needs}. A rollout here brings: {brought}. Choose an estimator that does without, or fill one of "
            f"{', '.join(FROM_REWARD)} from a reward: `pipeline.inputs: {{metric: my_reward}}`."
        )
