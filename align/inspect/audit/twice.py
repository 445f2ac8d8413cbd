"""Samples that are scored twice, as a row of JSON holds it: the second scoring shows the noise of the scorers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.heldout import known
from align.types import RewardTable, Samples

if TYPE_CHECKING:
    from align.config.shared import RewardConfig
    from align.rewards.scorer import Scorer

SERVER = "http"


def scored_twice(
    scorer: Scorer, samples: Samples, cached: Sequence[str] = ()
) -> list[dict[str, dict[str, float | None]]]:
    """`rewards` and `rewards_again` of each sample, by name; None where unscored.

    Args:
        scorer: runs the rewards.
        samples: what is scored.
        cached: rewards whose second scoring is none, so that it is left out.
    """
    first, again = (_by_name(scorer.score(samples)) for _ in range(2))
    again = [{name: None if name in cached else value for name, value in row.items()} for row in again]
    return [{"rewards": one, "rewards_again": other} for one, other in zip(first, again, strict=True)]


def is_cached(reward: RewardConfig) -> bool:
    """Whether a second answer comes from a cache, so that it says nothing about the noise of the scorer."""
    return reward.function == SERVER and reward.options.get("cache", True) is not False


def _by_name(table: RewardTable) -> list[dict[str, float | None]]:
    return [
        {name: known(value) for name, value in zip(table.names, values, strict=True)}
        for values in table.values.tolist()
    ]
