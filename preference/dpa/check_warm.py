"""The rated answers of a warm start: reading them, and what contradicts them. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from align.config.errors import Problem
from align.errors import AlignError
from preference.dpa.config import DpaRun, WarmStart
from preference.ratings import RatedTexts, read_ratings
from preference.tables import is_local


def read_rated(config: DpaRun, warm: WarmStart) -> RatedTexts:
    """The rated answers, a column for each reward of the run in their order.

    Raises:
        AlignError: no such source, or no ratings of a reward.
    """
    names = [warm.columns.get(name, name) for name in config.reward_names()]
    return read_ratings(warm.data, attributes=names, split=warm.split, bad_rows=config.data.bad_rows)


def check_warm_start(config: DpaRun) -> Iterator[Problem]:
    """Steps that leave none for the rounds, and files that rate something else."""
    warm = config.algorithm.warm_start
    if warm is None:
        return
    if warm.steps >= config.training.steps:
        yield Problem(
            keys=("algorithm.warm_start.steps", "training.steps"),
            message=f"the warm start takes {warm.steps} of {config.training.steps} steps, so the rounds have none.",
            way_out="Raise `training.steps`, which counts them, too.",
        )
    unknown = [name for name in warm.columns if name not in config.reward_names()]
    if unknown:
        yield Problem(
            keys=("algorithm.warm_start.columns",),
            message=f"`algorithm.warm_start.columns` names `{unknown[0]}`, which is no reward.",
            way_out=f"The rewards are {', '.join(config.reward_names()) or 'none'}.",
        )
    if not is_local(warm.data):
        return
    try:
        rated = read_rated(config, warm)
    except AlignError as error:
        yield Problem(
            keys=("algorithm.warm_start.data", "rewards"),
            message=f"`algorithm.warm_start.data`: {error.message}",
            way_out=f"{error.way_out} A rating with another name than its reward: `algorithm.warm_start.columns`.",
        )
        return
    if len(set(rated.group_ids)) == len(rated):
        yield Problem(
            keys=("algorithm.warm_start.data",),
            message=f"{warm.data} has one rated answer for each prompt, so there is none to prefer.",
            way_out="Give a file with several rated answers to a prompt.",
        )
