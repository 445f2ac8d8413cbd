"""How easy a text is to read, by textstat's formulas.

Those that count syllables look English words up in a dictionary that textstat downloads when it is missing. A reward
must not reach for the network in the middle of a run, so it asks for the dictionary beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from align.errors import AlignError
from align.packages import check_installed
from align.rewards.network import Lazy
from align.rewards.options import one_of

INSTALL = "pip install 'align-suite[text-rewards]'"
EASE: Mapping[str, float] = {
    "automated_readability_index": -1.0,
    "coleman_liau_index": -1.0,
    "lix": -1.0,
    "flesch_kincaid_grade": -1.0,
    "flesch_reading_ease": 1.0,
}
"""Formula -> sign that makes more of it easier."""
SYLLABLES = ("flesch_kincaid_grade", "flesch_reading_ease")


class Readability:
    """How easy a text is to read: minus the school grade that it takes (or Flesch's ease). An empty text: no score.

    Args:
        formula: `automated_readability_index` and `coleman_liau_index` (US school grades from characters), `lix`
            (long words), `flesch_kincaid_grade` and `flesch_reading_ease` (English syllables; these need nltk's
            dictionary `cmudict` on this computer).
        raw: the formula's own number instead: a grade grows with difficulty.

    Note:
        Formulas are made for passages. On a sentence or two they are rough, and one very long word moves them far:
        clip them before they are added to something else.

    References:
        Smith and Senter, "Automated Readability Index", AMRL-TR-66-220, 1967.
        Coleman and Liau, "A computer readability formula designed for machine scoring", 1975.
        Flesch, "A new readability yardstick", 1948; Kincaid et al., 1975.
    """

    def __init__(self, formula: str = "automated_readability_index", raw: bool = False) -> None:
        one_of("formula", formula, tuple(EASE))
        check_installed(("textstat",), INSTALL, "the reward `readability`")
        if formula in SYLLABLES:
            _check_dictionary(formula)
        self._sign = 1.0 if raw else EASE[formula]
        self._formula: Lazy[Callable[[str], float]] = Lazy(lambda: getattr(_textstat(), formula))

    def __call__(self, *, completions: Sequence[str], **columns: object) -> list[float | None]:
        return [self._sign * float(self._formula()(text)) if text.strip() else None for text in completions]


def _check_dictionary(formula: str) -> None:
    import nltk  # pyright: ignore[reportMissingImports]

    try:
        nltk.data.find("corpora/cmudict")
    except LookupError:
        raise AlignError(
            f"`formula: {formula}` counts syllables with nltk's dictionary `cmudict`, which is not on this computer.",
            "Fetch it once by `python -m nltk.downloader cmudict`, or set `formula: automated_readability_index`.",
        ) from None


def _textstat() -> Any:  # Any: its functions are made at run time
    from textstat import textstat  # pyright: ignore[reportMissingImports]

    return textstat
