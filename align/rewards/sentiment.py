"""Sentiment of a text by VADER's word list and rules. Nothing is downloaded: the list is a file of the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.packages import check_installed
from align.rewards.network import Lazy
from align.rewards.options import one_of

PARTS = ("compound", "positive", "neutral", "negative")
INSTALL = "pip install 'align-suite[text-rewards]'"


class Sentiment:
    """Sentiment of a text (English) by VADER, in [-1, 1]: -1 most negative, 1 most positive. An empty text: no score.

    Args:
        part: `compound` (the whole, in [-1, 1]), or the share of `positive`, `neutral` or `negative` words in [0, 1].

    Note:
        Long texts saturate: a dozen kind words bring the compound close to 1, so it is easily won by flattery.

    References:
        Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
        ICWSM 2014.
    """

    def __init__(self, part: str = "compound") -> None:
        one_of("part", part, PARTS)
        check_installed(("vaderSentiment",), INSTALL, "the reward `sentiment`")
        self._key = "compound" if part == "compound" else part[:3]
        self._analyser = Lazy(_analyser)

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float | None]:
        return [self._analyser().polarity_scores(text)[self._key] if text.strip() else None for text in completions]


def _analyser() -> Any:  # Any: the package has no types
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # pyright: ignore[reportMissingImports]

    return SentimentIntensityAnalyzer()
