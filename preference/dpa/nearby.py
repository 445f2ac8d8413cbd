"""The best of several directions near the asked one, at the price of as many answers.

    v_0 = v, v_1 .. v_{k-1} uniform within 30 degrees of v;   y_j ~ p( . | text(v_j), x);   y = argmax_j v . C r(x, y_j)

It helps most where the policy was never trained: the direction is asked of neighbours that it knows better.

References:
    Robust Preference Selection, arXiv:2510.20498, known here at second hand: k = 5 directions within 30 degrees, one
    answer each. That the asked direction is one of them is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.control import Vector
from align.engine.random import generator
from align.shaping.directions import from_integers, random_directions, to_integers
from align.types import Samples
from preference.candidates import Answer
from preference.data import Texts

if TYPE_CHECKING:
    from align.rewards.scorer import Scorer
    from align.shaping.steering import Scale
    from preference.dpa.control import Control
    from preference.generate import AnswerSource, Wanted

DEGREES = 30.0
"""How far neighbours are from the asked direction at most."""


def neighbours_of(vector: Vector, count: int, *key: int | str) -> list[Vector]:
    """The direction itself and `count` - 1 others near it; a pure function of the key. An objective that it asks for
    is asked less for at most, never against."""
    main = from_integers(vector)
    kept = tuple(place for place, component in enumerate(main.tolist()) if component >= 0)
    if count == 1:
        return [vector]
    source = generator(*key, "neighbours")
    drawn = random_directions(count - 1, main, source, cap_degrees=DEGREES, non_negative=kept)
    return [vector, *(tuple(to_integers(row)) for row in drawn)]


def asked_nearby(texts: Texts, control: Control, vectors: Sequence[Sequence[Vector]]) -> Texts:
    """Every prompt under each of its directions, numbered anew so that each is a row of its own.

    Args:
        texts: prompts without a direction in them.
        control: puts directions into words.
        vectors: of each prompt, as many for all.
    """
    count = len(vectors[0])
    places = [place for place in range(len(texts)) for _ in range(count)]
    rows = [control.asked(texts.rows[place], one) for place, own in enumerate(vectors) for one in own]
    numbers = tuple(texts.numbers[place] * count + j for place in range(len(texts)) for j in range(count))
    return replace(texts.select(places), rows=tuple(rows), numbers=numbers)


class BestNearby:
    """Answers by the best of the answers under neighbouring directions; an `AnswerSource`.

    Args:
        inner: answers the rows of `asked_nearby`.
        texts: prompts as rewards see them.
        vectors: of each prompt, the asked one first.
        scorer: runs the rewards.
        control: their mix.
        scale: common scale of the rewards.
    """

    def __init__(
        self,
        inner: AnswerSource,
        texts: Texts,
        vectors: Sequence[Sequence[Vector]],
        *,
        scorer: Scorer,
        control: Control,
        scale: Scale,
    ) -> None:
        self._inner, self._texts, self._vectors = inner, texts, vectors
        self._scorer, self._control, self._scale = scorer, control, scale
        self._count = len(vectors[0])
        self.at_once = max(1, inner.at_once // self._count)

    def identity(self) -> Mapping[str, Any]:
        return {**self._inner.identity(), "neighbours": self._count}

    def usable(self) -> Sequence[int]:
        there = set(self._inner.usable())
        return [place for place in range(len(self._texts)) if {*self._rows(place)} <= there]

    def answers(self, wanted: Sequence[Wanted]) -> list[Answer]:
        asked = [(row, number) for place, number in wanted for row in self._rows(place)]
        answers = self._inner.answers(asked)
        scores = self._scores([place for place, _ in wanted for _ in range(self._count)], answers)
        best = scores.nan_to_num(float("-inf")).view(len(wanted), self._count).argmax(dim=1)
        return [answers[first * self._count + int(place)] for first, place in enumerate(best)]

    def _rows(self, place: int) -> range:
        return range(place * self._count, (place + 1) * self._count)

    def _scores(self, places: Sequence[int], answers: Sequence[Answer]) -> Float[Tensor, "n"]:
        """Along the asked direction; NaN where unscored, which is chosen only where nothing is scored."""
        rows = self._texts.select(places)
        samples = Samples(
            index=torch.arange(len(places)),
            group_ids=torch.tensor(places),
            prompts=rows.prompts,
            completions=[answer.text for answer in answers],
            columns=rows.columns,
        )
        rewards = self._scorer.score(samples).values.double()
        return self._control.scores(rewards, [self._vectors[place][0] for place in places], self._scale)
