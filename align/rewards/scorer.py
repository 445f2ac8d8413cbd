"""Run several rewards over samples.

A reward that fails leaves its samples unscored (NaN), counted and logged. Only one that says so ends a run: it raises
`ScorerStopped`.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.config.shared import RewardConfig
from align.errors import AlignError
from align.rewards.load import Reward, check_inputs, check_rows, load_rewards
from align.rewards.outcome import ScorerStopped, Unscored
from align.types import RewardTable, Samples

logger = logging.getLogger(__name__)

LARGEST = torch.finfo(torch.float32).max
MESSAGE_LENGTH = 300
CONTRACT = "A scorer must return one score per sample, in order; use nan for a sample it cannot score."


class AllUnscored(AlignError):  # noqa: N818 - named for what happened: no sample of a step has a score
    """No sample of a step has a score, so there is nothing to learn from.

    Args:
        problems: per reward, why its samples are unscored: message -> count, of all processes.
    """

    def __init__(self, problems: Mapping[str, Mapping[str, int]]) -> None:
        reasons = [
            f"  reward '{name}' {message} ({count} samples)"
            for name, counts in problems.items()
            for message, count in sorted(counts.items(), key=lambda item: -item[1])
        ]
        message = "no sample of this step could be scored, so there is nothing to learn from."
        super().__init__(
            "\n".join([message, *reasons]), "Repair the reward; weight 0 makes it a metric, which may fail."
        )


class Scorer:
    """Rewards by their config entries.

    Args:
        rewards: which rewards, in the order of the table's columns.
        search_dir: folder of the config, for rewards named by file.

    Raises:
        RewardError: one of them cannot be found or used.
    """

    def __init__(self, rewards: Sequence[RewardConfig], search_dir: Path | None = None) -> None:
        self.rewards = load_rewards(rewards, search_dir)
        self._told: set[tuple[str, str]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return tuple(reward.name for reward in self.rewards)

    def check(self, available: Iterable[str]) -> None:
        """Refuse, before a run, rewards that need an argument no sample has.

        Args:
            available: `prompts`, `images` or `completions`, and the data-set's columns.
        """
        check_inputs(self.rewards, available)

    def check_rows(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """Refuse, before a run, prompts that a reward could never score.

        Args:
            rows: `prompts` and the data-set's columns, one entry per row.
        """
        check_rows(self.rewards, rows)

    def score(self, samples: Samples) -> RewardTable:
        """Raw rewards of the samples, one row each, in their order; NaN where a reward could not score."""
        columns, problems = [], {}
        for reward in self.rewards:
            scores, counts = self._score_one(reward, samples)
            columns.append(torch.tensor(scores, dtype=torch.float32))
            if counts:
                problems[reward.name] = counts
        return RewardTable(
            names=self.names,
            values=torch.stack(columns, dim=1) if columns else torch.zeros(len(samples), 0),
            weights=torch.tensor([reward.weight for reward in self.rewards], dtype=torch.float32),
            problems=problems,
        )

    def _score_one(self, reward: Reward, samples: Samples) -> tuple[list[float], dict[str, int]]:
        try:
            returned = reward.function(**reward.arguments(_available(samples)))
        except ScorerStopped:
            raise
        except Exception as error:
            message = _shortened(f"raised {type(error).__name__}: {error}")
            self._tell(reward.name, message, error)
            return [math.nan] * len(samples), {message: len(samples)}
        values, message = _as_list(returned, len(samples))
        read = (
            [(math.nan, message) for _ in range(len(samples))] if message else [_as_number(value) for value in values]
        )
        counts = Counter(problem for _, problem in read if problem)
        for problem in counts:
            self._tell(reward.name, problem)
        return [score for score, _ in read], dict(counts)

    def _tell(self, name: str, message: str, error: Exception | None = None) -> None:
        """Each message once in a run; later ones are only counted."""
        if (name, message) not in self._told:
            self._told.add((name, message))
            logger.warning(
                "reward '%s' %s (told once; later ones are counted as `unscored`)", name, message, exc_info=error
            )


def _available(samples: Samples) -> Mapping[str, Any]:
    """The arguments that samples offer. The data set cannot replace the samples themselves."""
    own = {"prompts": samples.prompts, "images": samples.images, "completions": samples.completions}
    return {**samples.columns, **{name: value for name, value in own.items() if value is not None}}


def _as_list(returned: object, n: int) -> tuple[Sequence[object], str]:
    """The scores one by one, or what is wrong with all of them together."""
    if isinstance(returned, Tensor):
        returned = returned.detach().cpu()
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        return [], f"returned a {type(returned).__name__}. {CONTRACT}"
    try:
        values = list(returned)
    except Exception as error:  # a 0-d array, or a generator that fails
        return [], _shortened(f"returned a {type(returned).__name__} that cannot be read ({error}). {CONTRACT}")
    if len(values) != n:
        return [], f"returned {len(values)} scores for {n} samples. {CONTRACT}"
    return values, ""


def _as_number(value: object) -> tuple[float, str]:
    """A finite float32 number, or NaN and why. Python, numpy and tensor scalars are numbers; texts are not."""
    if isinstance(value, Unscored):
        return math.nan, _shortened(value.reason)
    if value is None:
        return math.nan, "returned None: it could not score the sample"
    kind = type(value).__name__
    if isinstance(value, str | bytes | bytearray):
        return math.nan, f"returned a {kind} instead of a number"
    try:
        item = getattr(value, "item", None)  # numpy and torch: a scalar, or an array that holds one number
        number = float(item() if callable(item) else value)  # type: ignore[arg-type]  # whatever the user returned
    except OverflowError:
        number = LARGEST * 2
    except (TypeError, ValueError, RuntimeError):
        return math.nan, f"returned a {kind} instead of a number"
    if math.isnan(number):
        return math.nan, "returned nan: it could not score the sample"
    if abs(number) > LARGEST:
        return math.nan, f"returned {'infinity' if math.isinf(number) else 'a number beyond float32'}"
    return number, ""


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"
