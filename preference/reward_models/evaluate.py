"""Held-out evaluation of a reward model: the same pairs or answers at every step, so that two evaluations are paired.

One row a pair or an answer; numbers of all together are figures of the record; tables (reliability, levels) go into the
report of the run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.batching import even_cuts, micro_cuts
from align.engine.distributed import Processes
from align.heldout import ALL, EvaluatedRow, HeldoutRows
from align.order import spearman
from preference.pair_metrics import reward_metrics
from preference.reward_models.batches import StoredRatings
from preference.reward_models.calibration import agreement, by_level, correct, expected_calibration_error, reliability
from preference.reward_models.losses import Averaging, label_counts, masked_mse, squared_errors
from preference.reward_models.methods import RewardBt, Scored, label_variance, unit_of
from preference.scores import Sides
from preference.stored_pairs import StoredPairs


@dataclass(frozen=True, kw_only=True)
class Found:
    """An evaluation.

    Attributes:
        rows: one a pair or an answer.
        figures: numbers of all together.
        tables: for the report (Any: plain data).
    """

    rows: Sequence[EvaluatedRow]
    figures: Mapping[str, float]
    tables: Mapping[str, Any] = field(default_factory=dict)

    def with_figures(self, further: Mapping[str, float]) -> Found:
        """With these figures, too."""
        return replace(self, figures={**self.figures, **further})

    def record(self, step: int, weights: str) -> HeldoutRows:
        """As the run folder holds it; what nobody knows (the rank of equal predictions) is left out."""
        known = {name: value for name, value in self.figures.items() if math.isfinite(value)}
        return HeldoutRows(step=step, weights=weights, rows=self.rows, figures=known)


class Evaluator(Protocol):
    """Scores what is held out."""

    def __call__(self) -> Found:
        """A collective; with the weights that the network has at the moment."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Who scores how many at once.

    Attributes:
        processes: who shares the work.
        batch_size: rows of a pass.
    """

    processes: Processes
    batch_size: int

    @torch.no_grad()
    def over(self, rows: int, score: Callable[[Tensor], Float[Tensor, "b c"]], columns: int) -> Float[Tensor, "n c"]:
        """Numbers of all rows, float64, on every process; each process scores its own part."""
        cut = even_cuts(rows, self.processes.world)[self.processes.rank]
        own = torch.arange(cut.start, cut.stop)
        parts = [score(own[micro.start : micro.stop]) for micro in micro_cuts(len(own), self.batch_size)]
        found = [part.double().cpu() for part in parts]
        return self.processes.gather_rows(torch.cat([torch.zeros(0, columns, dtype=torch.float64), *found]))


@dataclass(frozen=True, kw_only=True)
class PairAccuracy:
    """Held-out pairs: accuracy, margins, calibration.

    Attributes:
        method: whose loss is reported.
        network: scores token sequences.
        pairs: held-out pairs.
        work: who scores how many at once.
        bins: of the reliability table.
    """

    method: RewardBt
    network: Scored
    pairs: StoredPairs
    work: Shared
    bins: int

    def __call__(self) -> Found:
        """A collective."""
        values = self.work.over(len(self.pairs), self._score, 3)
        rewards, rates = Sides(values[:, 0], values[:, 1]), self.pairs.rates
        margins = rewards.chosen - rewards.rejected
        right = correct(margins, rates)
        table = reliability(margins, rates=rates, bins=self.bins)
        figures = {
            "loss": float(values[:, 2].mean()),
            **{name: float(value) for name, value in reward_metrics(rewards).items()},
            "agreement": float(right.mean()),
            "calibration_error": expected_calibration_error(table),
        }
        return Found(
            rows=self._rows(right, margins), figures=figures, tables={"reliability": [asdict(row) for row in table]}
        )

    def _score(self, rows: Tensor) -> Float[Tensor, "b c"]:
        rewards = self.network.pairs(self.pairs.batch(rows, rows))
        return torch.stack([*rewards, self.method.losses(rewards, rows)], dim=1)

    def _rows(self, right: Tensor, margins: Tensor) -> list[EvaluatedRow]:
        data = self.pairs.data
        groups = data.columns.get("class") or [None] * len(data)
        numbers = zip(data.prompts, groups, right.tolist(), margins.tolist(), strict=True)
        return [
            EvaluatedRow(
                number=number,
                prompt=prompt,
                group=ALL if group is None else str(group),
                seed=0,
                rewards={"accuracy": accuracy, "margin": margin},
            )
            for number, (prompt, group, accuracy, margin) in enumerate(numbers)
        ]


@dataclass(frozen=True, kw_only=True)
class RatingErrors:
    """Held-out answers: errors, rank correlation, agreement within prompts, mean prediction by level.

    Attributes:
        predict: places of answers -> predictions in training units.
        ratings: held-out answers.
        names: of the attributes.
        work: who scores how many at once.
        averaging: of the loss that is reported.
    """

    predict: Callable[[Tensor], Float[Tensor, "b k"]]
    ratings: StoredRatings
    names: tuple[str, ...]
    work: Shared
    averaging: Averaging = "micro"

    def __call__(self) -> Found:
        """A collective."""
        ratings = self.ratings
        predicted = self.work.over(len(ratings), self.predict, len(self.names))
        labels = ratings.labels.double()
        figures = {"loss": float(masked_mse(predicted, labels, averaging=self.averaging))}
        counts = label_counts(labels)
        means = squared_errors(predicted, labels).sum(dim=0) / counts
        spread, shares = label_variance(labels), []
        levels: dict[str, Any] = {}
        for place, name in enumerate(self.names):
            if not counts[place]:
                continue
            found = agreement(predicted[:, place], labels[:, place], ratings.group_ids)
            shares.append(found)
            figures[f"mse/{name}"] = float(means[place]) * unit_of(ratings, place) ** 2
            figures[f"spearman/{name}"] = float(spearman(predicted[:, place], labels[:, place]))
            figures[f"agreement/{name}"] = found.share
            levels[name] = [asdict(row) for row in self._by_level(place, predicted, labels)]
        known = counts > 0
        figures["unexplained_variance"] = float((means[known] / spread[known]).mean())
        pairs = sum(found.pairs for found in shares)
        ordered = sum(found.share * found.pairs for found in shares if found.pairs)
        figures["agreement"] = ordered / pairs if pairs else float("nan")
        return Found(rows=self._rows(predicted, labels), figures=figures, tables={"levels": levels})

    def _by_level(self, place: int, predicted: Tensor, labels: Tensor) -> Sequence[Any]:
        scale = self.ratings.scales[place]
        grid = [scale.lowest + scale.step * level for level in range(scale.levels)]
        return by_level(scale.to_label(predicted[:, place]), scale.to_label(labels[:, place]), grid)

    def _rows(self, predicted: Tensor, labels: Tensor) -> list[EvaluatedRow]:
        """Minus the absolute error in label units: more is better, as everywhere in records."""
        units = torch.tensor([unit_of(self.ratings, place) for place in range(len(self.names))], dtype=torch.float64)
        errors = (-(predicted - labels).abs() * units).tolist()
        prompts, met = self.ratings.data.prompts, Counter[str]()
        seeds = [met.update([prompt]) or met[prompt] - 1 for prompt in prompts]  # number of the answer to its prompt
        return [
            EvaluatedRow(
                number=number,
                prompt=prompt,
                group=ALL,
                seed=seeds[number],
                rewards={f"minus_error_{name}": None if e != e else e for name, e in zip(self.names, row, strict=True)},
            )
            for number, (prompt, row) in enumerate(zip(prompts, errors, strict=True))
        ]
