"""What the estimators of a pipeline read beside scores and groups: where it comes from, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from align.config.needs import FROM_REWARD, explain, needs_of, unmet
from align.config.pipeline import PipelineConfig
from align.errors import did_you_mean
from align.shaping.table import Columns


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


def check_collected(config: PipelineConfig, collected: Iterable[str]) -> None:
    """Raise a ValueError at the start of a run whose rollout does not bring what the estimators need."""
    collected = tuple(collected)
    missing = unmet(needs_of(config), collected)
    if missing:
        raise ValueError(" ".join(explain(missing, collected)))
