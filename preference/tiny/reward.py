"""Three rewards for answers about notes, each in [0, 1]. They read the texts; no network can be fooled.

* `correct`: exactly one true statement, and beside it only known manners.
* `brevity`: 1 for one word, falling evenly to 0 at `LONGEST` words.
* `positivity`: 1/2 for a neutral text, more for friendly words, less for grumpy ones.

They pull in different directions: friendliness takes words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from preference.tiny import world
from preference.tiny.wording import PHRASES, statements

LONGEST = 31
"""Words at which brevity is 0; the longest answer of the world's wording has fewer."""

POSITIVE = frozenset(
    ("sure", "course", "great", "pleasure", "happy", "lovely", "thanks", "enjoy", "nice", "glad", "wonderful", "good")
)
NEGATIVE = frozenset(
    ("ugh", "again", "boring", "silly", "leave", "alone", "tired", "stop", "bothering", "waste", "bad", "stupid")
)

_KNOWN = frozenset(phrase.lower() for phrase in PHRASES)
_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_WORDS = re.compile(r"\w+(?:'\w+)?")


def judge(prompt: str, completion: str) -> bool | None:
    """Whether an answer is right; None where the prompt is none of this world.

    The rule. The answer is cut into sentences. Manners (`wording.PHRASES`) may stand in it, each at most once. What is
    left must be one sentence, and one of the accepted wordings of the true answer. Capitals and the mark at the end of
    the last sentence do not matter. So two answers, a repeated answer, "not", "or" and "maybe" earn
    nothing, and neither does silence.
    """
    try:
        note, kind = world.parse(prompt)
    except ValueError:
        return None
    sentences = [_tidy(sentence) for sentence in _SENTENCES.split(completion.strip())]
    if len(set(sentences)) < len(sentences):
        return False
    left = [sentence for sentence in sentences if sentence not in _KNOWN]
    accepted = {text.lower() for text in statements(note, kind, world.answer(note, kind))}
    return len(left) == 1 and left[0] in accepted


def _tidy(sentence: str) -> str:
    tidy = " ".join(sentence.lower().split())
    return tidy if tidy[-1:] in (".", "!", "?") else f"{tidy}."


def correct(*, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
    """1.0 for a right answer, else 0.0; None where the prompt is none of this world. See `judge`."""
    verdicts = [judge(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def brevity(*, completions: Sequence[str], **columns: object) -> list[float]:
    """max(0, (L - w) / (L - 1)) for w words and L = `LONGEST`; 0 for an answer without a word."""
    counts = [len(_words(text)) for text in completions]
    return [max(0.0, (LONGEST - count) / (LONGEST - 1)) if count else 0.0 for count in counts]


def positivity(*, completions: Sequence[str], **columns: object) -> list[float]:
    """(1 + (p - n) / (p + n + 1)) / 2 for p different friendly and n different grumpy words; 1/2 where there are none.

    A word counts once however often it is said.
    """
    return [_positivity(set(_words(text))) for text in completions]


def _positivity(words: set[str]) -> float:
    friendly, grumpy = len(words & POSITIVE), len(words & NEGATIVE)
    return (1 + (friendly - grumpy) / (friendly + grumpy + 1)) / 2


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())
