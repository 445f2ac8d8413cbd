"""Does a policy follow its direction? Held-out prompts under several directions, and the numbers of
`align.shaping.steering` that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from align.heldout import EvaluatedRow, HeldoutRows
from align.shaping.directions import from_integers
from align.shaping.steering import Scale, steering_figures
from preference.data import Texts
from preference.dpa.control import Control, Vector

if TYPE_CHECKING:
    from preference.evaluate import AnswerEvaluator
    from preference.tokens import TokenPrompts


def under_directions(prompts: Texts, control: Control, vectors: Sequence[Vector]) -> Texts:
    """Every prompt under every direction, direction after direction; the direction is the class of its rows."""
    places = [place for _ in vectors for place in range(len(prompts))]
    labels = [control.label(vector) for vector in vectors for _ in range(len(prompts))]
    texts = prompts.select(places)
    asked = [control.asked(row, vector) for vector in vectors for row in prompts.rows]
    return replace(texts, rows=tuple(asked), columns={**texts.columns, "class": tuple(labels)})


def as_the_data_has_them(asked: TokenPrompts, prompts: Texts) -> TokenPrompts:
    """Prompts that are answered with their direction, but shown to rewards and people without it.

    Args:
        asked: of `under_directions`, as tokens.
        prompts: before a direction was put into them.
    """
    plain = dict(zip(prompts.numbers, prompts.prompts, strict=True))
    return replace(asked, prompts=[plain[number] for number in asked.rows])


class SteeringEvaluator:
    """Answers under all directions, and what they say together.

    Args:
        answers: answers and scores all rows of `under_directions`.
        control: objectives.
        vectors: the directions, in the order of the rows.
        scale: of the objectives, asked for at each evaluation; None = of this evaluation's own rows.
        reference: of the hypervolume.
    """

    def __init__(
        self,
        answers: AnswerEvaluator,
        control: Control,
        vectors: Sequence[Vector],
        *,
        scale: Callable[[], Scale | None],
        reference: float,
    ) -> None:
        self._answers, self._control, self._vectors = answers, control, list(vectors)
        self._scale, self._reference = scale, reference

    def evaluate(self, step: int, network: torch.nn.Module, weights: str) -> HeldoutRows:
        """Everything that is held out. A collective.

        Args:
            step: finished training steps, for the record.
            network: the model with the weights to evaluate in it.
            weights: their name, "ema" or "raw".
        """
        rows = self._answers.rows(network, 0)
        return HeldoutRows(step=step, weights=weights, rows=rows, figures=self._figures(rows))

    def _figures(self, rows: Sequence[EvaluatedRow]) -> dict[str, float]:
        rewards = torch.tensor(
            [[float("nan") if value is None else value for value in row.rewards.values()] for row in rows],
            dtype=torch.float64,
        )
        scale = self._scale() or Scale.of(rewards)
        values = self._control.values(rewards, scale)
        labels = [self._control.label(vector) for vector in self._vectors]
        means = [values[[row.group == label for row in rows]].nanmean(dim=0) for label in labels]
        directions = torch.stack([from_integers(vector) for vector in self._vectors])
        return steering_figures(directions, torch.stack(means), self._control.names, reference=self._reference)
