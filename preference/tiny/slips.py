"""Wrong answers on purpose: what makes the base model unreliable, as texts from the web make real ones.

Trained on true answers, the model would have nothing left to repair. So a share `SLIPS` of its training answers gives
not the truth but one fixed near miss: the word that follows the true one in its list (`world.FIELDS`), for "Monday"
"Tuesday" and for 3 4. The model learns that mixture: fluent, and right in about the remaining share.
"""

from __future__ import annotations

import random
from dataclasses import replace

from preference.tiny.world import ASKED, CLASSES, FIELDS, Note, answer

SLIPS = dict.fromkeys(CLASSES, 0.5)
"""Share of the training answers that are wrong."""


def near_miss(note: Note, kind: str) -> str:
    """The wrong answer to a question."""
    part = ASKED[kind]
    values = FIELDS[part]
    follower = values[(values.index(getattr(note, part)) + 1) % len(values)]
    return answer(replace(note, **{part: follower}), kind)


def told(note: Note, kind: str, rng: random.Random, *, slips: bool) -> str:
    """What a training text answers: the truth, or with `slips` sometimes the near miss."""
    wrong = slips and rng.random() < SLIPS[kind]
    return near_miss(note, kind) if wrong else answer(note, kind)
