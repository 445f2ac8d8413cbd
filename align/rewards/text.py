"""Rewards of texts that need no model: length, repetition, patterns. Exact, free, offline.

A word is a run without white space. A text without a word has no score where the measure would be of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from align.errors import AlignError
from align.rewards.network import Lazy, place_of
from align.rewards.options import one_of, positive, whole

Measure = Callable[[str], int]


def repetition(*, completions: Sequence[str], n: int = 3, **columns: object) -> list[float | None]:
    """Share of a text's n-grams of words that occurred in it before, in [0, 1); a cost, see `distinct`.

        1 - |distinct n-grams| / |n-grams|

    Words are compared in lower case. A text of n words or fewer has no n-gram twice: 0.

    Args:
        completions: texts.
        n: words in an n-gram.
        columns: not used.

    References:
        Welleck et al., "Neural Text Generation with Unlikelihood Training", arXiv:1908.04319 (seq-rep-n).
    """
    whole("n", n)
    return [_repeated(text.lower().split(), n) for text in completions]


def distinct(*, completions: Sequence[str], n: int = 3, **columns: object) -> list[float | None]:
    """Share of a text's n-grams of words that are different from each other, in (0, 1]: 1 - `repetition`.

    Args:
        completions: texts.
        n: words in an n-gram.
        columns: not used.
    """
    costs = repetition(completions=completions, n=n)
    return [None if cost is None else 1 - cost for cost in costs]


def _repeated(words: Sequence[str], n: int) -> float | None:
    if not words:
        return None
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class TextLength:
    """Length of a text in words, characters or tokens; the plain number, made for tables and as a metric.

    Args:
        unit: `words`, `characters` or `tokens`.
        tokenizer: folder or hub id of the tokenizer that `tokens` are counted with.
    """

    def __init__(self, unit: str = "words", tokenizer: str | None = None) -> None:
        self._measure = measure_of(unit, tokenizer)

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float]:
        return [float(self._measure(text)) for text in completions]


class LengthTarget:
    """How near the length of a text is to a target, in [0, 1]: 1 at the target, 0 from twice the target on.

        1 - min(|length - target| / target, 1)

    Args:
        target: the wanted length.
        unit: `words`, `characters` or `tokens`.
        tokenizer: folder or hub id of the tokenizer that `tokens` are counted with.
    """

    def __init__(self, target: float | int, unit: str = "words", tokenizer: str | None = None) -> None:
        positive("target", target)
        self._target, self._measure = target, measure_of(unit, tokenizer)

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float]:
        """0 for an empty text: it is as far from the target as can be."""
        lengths = [self._measure(text) for text in completions]
        return [1 - min(abs(length - self._target) / self._target, 1.0) for length in lengths]


class Brevity:
    """1 for a text within the limit, limit / length for a longer one, in (0, 1]. An empty text is not brief: no score.

    Args:
        limit: length up to which nothing is lost.
        unit: `words`, `characters` or `tokens`.
        tokenizer: folder or hub id of the tokenizer that `tokens` are counted with.
    """

    def __init__(self, limit: float | int = 20, unit: str = "words", tokenizer: str | None = None) -> None:
        positive("limit", limit)
        self._limit, self._measure = limit, measure_of(unit, tokenizer)

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float | None]:
        return [self._score(text) for text in completions]

    def _score(self, text: str) -> float | None:
        return min(1.0, self._limit / self._measure(text)) if text.strip() else None


class RegexMatch:
    """1 where a regular expression is found in the text, otherwise 0; for formats, such as a JSON object or a tag.

    Args:
        pattern: a regular expression of Python.
        entire: the whole text must match, without white space around it.
        ignore_case: compare without case.
        absent: turn the score round: 1 where it is not found.
    """

    def __init__(self, pattern: str, entire: bool = False, ignore_case: bool = False, absent: bool = False) -> None:
        try:
            self._pattern = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
        except (re.error, TypeError) as error:
            raise AlignError(
                f"option `pattern` expects a regular expression, found {pattern!r} ({error}).",
                "In YAML put it between single quotes: `'^\\d+$'`.",
            ) from None
        self._entire, self._absent = entire, absent

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float]:
        return [float(self._found(text) is not self._absent) for text in completions]

    def _found(self, text: str) -> bool:
        match = self._pattern.fullmatch(text.strip()) if self._entire else self._pattern.search(text)
        return match is not None


def measure_of(unit: str, tokenizer: str | None = None) -> Measure:
    """What counts the length of a text.

    Args:
        unit: `words`, `characters` or `tokens`.
        tokenizer: for `tokens`: folder or hub id; it is loaded when the first text is counted.

    Raises:
        AlignError: another unit, or a tokenizer that is missing or not used.
    """
    one_of("unit", unit, (*MEASURES, "tokens"))
    if unit in MEASURES:
        if tokenizer is not None:
            raise AlignError(f"option `tokenizer` is not used by `unit: {unit}`.", "Remove it, or set `unit: tokens`.")
        return MEASURES[unit]
    if tokenizer is None:
        raise AlignError("`unit: tokens` needs a tokenizer.", "Name its folder or hub id in the option `tokenizer`.")
    place = place_of("tokenizer", tokenizer)
    loaded = Lazy(lambda: _tokenizer(place))
    return lambda text: len(loaded()(text, add_special_tokens=False)["input_ids"])


MEASURES: Mapping[str, Measure] = {"words": lambda text: len(text.split()), "characters": len}
"""Units that need no tokenizer."""


def _tokenizer(place: str) -> Any:  # Any: transformers' tokenizers have no common type
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
