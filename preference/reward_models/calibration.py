"""How far a reward model can be trusted: calibration of pairs, agreement with raters, errors by level. Pure functions.

confidence of a pair   c = sigma(|r_1 - r_2|), from 0.5 to 1
calibration error      ECE = sum_b n_b / n |accuracy_b - mean c_b|,     b: equal bins of [0.5, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Pairs of about equal confidence.

    Attributes:
        low, high: bounds of the confidence; the upper one belongs to the next bin, but for 1.
        count: pairs.
        confidence: their mean confidence; NaN where there is none.
        accuracy: share that is ordered as annotated.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def correct(margins: Float[Tensor, "n"], rates: Float[Tensor, "n"] | None = None) -> Float[Tensor, "n"]:
    """Whether each pair is ordered as annotated: 1 or 0, half of both where the rewards are equal.

    Args:
        margins: r_w - r_l.
        rates: share of annotators who prefer the chosen answer; None = 1. The share that agrees is then counted.
    """
    agrees = torch.ones_like(margins, dtype=torch.float64) if rates is None else rates.to(margins.device).double()
    found = torch.where(margins > 0, agrees, 1 - agrees)
    return torch.where(margins == 0, torch.full_like(found, 0.5), found)


def reliability(
    margins: Float[Tensor, "n"], *, rates: Float[Tensor, "n"] | None = None, bins: int = 10
) -> list[ReliabilityBin]:
    """The reliability table, also of empty bins.

    Args:
        margins: r_w - r_l of held-out pairs, in natural-log odds.
        rates: see `correct`.
        bins: equal bins of [0.5, 1].

    References:
        Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 2.
    """
    confidence = torch.sigmoid(margins.double().abs())
    place = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    right = correct(margins, rates)
    found = []
    for number in range(bins):
        inside = place == number
        found.append(
            ReliabilityBin(
                low=0.5 + number / (2 * bins),
                high=0.5 + (number + 1) / (2 * bins),
                count=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    return found


def expected_calibration_error(table: list[ReliabilityBin]) -> float:
    """Mean distance of accuracy and confidence, weighed by pairs; NaN without any."""
    total = sum(row.count for row in table)
    filled = [row for row in table if row.count]
    return sum(row.count * abs(row.accuracy - row.confidence) for row in filled) / total if total else float("nan")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How answers to the same prompt are ordered.

    Attributes:
        share: of their pairs with unequal labels that predictions order alike, equal predictions counting half; NaN
            where there is no such pair.
        pairs: how many there are.
    """

    share: float
    pairs: int


def agreement(predictions: Float[Tensor, "n"], labels: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Agreement:
    """Of answers to the same prompt, how often the one with the higher label has the higher prediction.

    Args:
        predictions: any unit.
        labels: NaN where there is none; such rows are in no pair.
        group_ids: equal for answers to the same prompt.
    """
    known = ~labels.isnan()
    order = group_ids[known].argsort(stable=True)
    values, ratings, ids = (column[known][order] for column in (predictions.double(), labels.double(), group_ids))
    points, pairs = 0.0, 0
    for size_values, size_ratings in zip(*(_by_group(column, ids) for column in (values, ratings)), strict=True):
        higher = size_ratings[:, None] > size_ratings[None, :]
        difference = (size_values[:, None] - size_values[None, :])[higher]
        points += float((difference > 0).double().sum() + 0.5 * (difference == 0).double().sum())
        pairs += len(difference)
    return Agreement(share=points / pairs if pairs else float("nan"), pairs=pairs)


def _by_group(column: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """A sorted column in pieces of equal id."""
    return column.split(ids.unique_consecutive(return_counts=True)[1].tolist())


@dataclass(frozen=True, kw_only=True)
class LevelRow:
    """Answers that raters gave about the same label.

    Attributes:
        label: the level.
        count: answers nearest to it.
        predicted: their mean prediction, in label units.
    """

    label: float
    count: int
    predicted: float


def by_level(predictions: Float[Tensor, "n"], labels: Float[Tensor, "n"], levels: list[float]) -> list[LevelRow]:
    """Mean prediction at each level: a calibrated head is on the diagonal at its ends, too.

    Args:
        predictions: in label units.
        labels: NaN where there is none.
        levels: of the scale; a label belongs to the nearest.
    """
    known = ~labels.isnan()
    grid = torch.tensor(levels, dtype=torch.float64)
    nearest = (labels[known].double()[:, None] - grid).abs().argmin(dim=1)
    return [
        LevelRow(
            label=level,
            count=int((nearest == place).sum()),
            predicted=float(predictions[known].double()[nearest == place].mean()),
        )
        for place, level in enumerate(levels)
    ]
