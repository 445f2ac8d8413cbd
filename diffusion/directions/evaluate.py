"""Held-out pictures of the same prompts and noise under several directions, and whether the policy follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.control import Vector
from align.engine.folder import step_name
from align.heldout import EvaluatedRow
from align.shaping.directions import from_integers
from align.shaping.steering import Scale, steering_figures
from diffusion.directions.ask import Asker
from diffusion.evaluate import Evaluation, Evaluator, spread_over_classes
from diffusion.models.base import Conditioning
from diffusion.prompts import PromptSet
from diffusion.records import read_evaluation


def under_directions(prompts: PromptSet, asker: Asker) -> PromptSet:
    """Every prompt under every shown direction, direction after direction; the direction is the class of its rows."""
    rows = [row for _ in asker.shown for row in range(len(prompts))]
    labels = [asker.label(vector) for vector in asker.shown for _ in range(len(prompts))]
    repeated = prompts.select(rows)
    return replace(repeated, columns={**repeated.columns, "class": tuple(labels)})


def first_prompts(prompts: PromptSet, count: int | None) -> PromptSet:
    """So many of the prompts, classes taken in turn; all of them for None."""
    return prompts if count is None else prompts.select(sorted(spread_over_classes(prompts)[:count]))


class SteeringEvaluator(Evaluator):
    """The held-out evaluation of a run with directions.

    Args:
        asker: the directions, and how the model is told.
        prompts: the held-out prompts, each once.
        reference: of the hypervolume.
        folder: of the run, where the evaluation of the base model is; None before there is one.
        options: of `Evaluator` (Any: see there).
    """

    def __init__(
        self,
        *arguments: Any,
        asker: Asker,
        prompts: PromptSet,
        reference: float,
        folder: Callable[[], Path | None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, prompts=under_directions(prompts, asker), **options)
        self._asker, self._each, self._reference, self._folder = asker, len(prompts), reference, folder
        self._scale: Scale | None = None

    def evaluate(self, step: int, network: nn.Module, weights: str, pictures: int = 0) -> Evaluation:
        """As `Evaluator.evaluate`, with the numbers that say whether the policy follows. Step 0 sets their scale."""
        found = super().evaluate(step, network, weights, pictures)
        if step == 0:
            self._scale = Scale.of(self._rewards(found.rows))
        return replace(found, figures=self._figures(found.rows))

    def _encoded(self, rows: Sequence[int]) -> Conditioning:
        vectors: list[Vector] = [self._asker.shown[row // self._each] for row in rows]
        return self._asker.encode(self._model, self._prompts.select(rows).prompts, vectors)

    def _noise_row(self, prompt_row: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """A prompt has the same noise under every direction."""
        return prompt_row % self._each

    def _rewards(self, rows: Sequence[EvaluatedRow]) -> Float[Tensor, "n k"]:
        values = [[row.rewards.get(name) for name in self._asker.names] for row in rows]
        return torch.tensor([[math.nan if value is None else value for value in row] for row in values]).double()

    def _figures(self, rows: Sequence[EvaluatedRow]) -> dict[str, float]:
        rewards = self._rewards(rows)
        values = (self._scale or self._stored_scale() or Scale.of(rewards))(rewards)
        labels = [self._asker.label(vector) for vector in self._asker.shown]
        means = [values[[row.group == label for row in rows]].nanmean(dim=0) for label in labels]
        directions = torch.stack([from_integers(vector) for vector in self._asker.shown])
        return steering_figures(directions, torch.stack(means), self._asker.names, reference=self._reference)

    def _stored_scale(self) -> Scale | None:
        """Of the base model's pictures, for a run that goes on."""
        folder = self._folder()
        path = None if folder is None else folder / "evaluations" / f"{step_name(0)}.json"
        if path is None or not path.is_file():
            return None
        self._scale = Scale.of(self._rewards(read_evaluation(path).rows))
        return self._scale
