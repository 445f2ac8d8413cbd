"""Calibration and agreement, worked by hand and on draws whose answer is known."""

import math

import pytest
import torch

from preference.reward_models.calibration import agreement, by_level, correct, expected_calibration_error, reliability

NAN = math.nan


def logit(p):
    return math.log(p / (1 - p))


def test_reliability_by_hand():
    """Confidences 0.6, 0.6, 0.6, 0.9 in two bins of [0.5, 1]: accuracy 2/3 and 0, so
    ECE = 3/4 |2/3 - 0.6| + 1/4 |0 - 0.9| = 0.05 + 0.225."""
    margins = torch.tensor([logit(0.6), logit(0.6), -logit(0.6), -logit(0.9)])
    low, high = reliability(margins, bins=2)
    assert (low.low, low.high, high.low, high.high) == (0.5, 0.75, 0.75, 1.0)
    assert (low.count, high.count) == (3, 1)
    assert (low.accuracy, low.confidence) == pytest.approx((2 / 3, 0.6))
    assert (high.accuracy, high.confidence) == pytest.approx((0.0, 0.9))
    assert expected_calibration_error([low, high]) == pytest.approx(0.275)


def test_ties_and_annotators():
    """A tie is half right. Where 70 % prefer the chosen answer, ordering it as they do agrees with 0.7 of them."""
    assert correct(torch.tensor([1.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]
    rates = torch.tensor([0.7, 0.7, 0.7])
    assert correct(torch.tensor([1.0, 0.0, -1.0]), rates).tolist() == pytest.approx([0.7, 0.5, 0.3])


def test_a_model_that_says_what_is_true_is_calibrated_and_a_loud_one_is_not():
    """20,000 pairs whose order follows sigma(margin): the error is that of sampling, below 0.02."""
    draw = torch.Generator().manual_seed(0)
    true = torch.randn(20_000, generator=draw, dtype=torch.float64).abs() * 1.5
    seen = torch.where(torch.rand(20_000, generator=draw, dtype=torch.float64) < true.sigmoid(), true, -true)
    assert expected_calibration_error(reliability(seen)) < 0.02
    assert expected_calibration_error(reliability(4 * seen)) > 0.1


def test_no_pairs():
    table = reliability(torch.zeros(0))
    assert len(table) == 10
    assert math.isnan(expected_calibration_error(table))


def test_agreement_by_hand():
    """Prompt 5: labels 1, 2, 3 predicted 0, 2, 1: pairs (1,2) and (1,3) right, (2,3) wrong. Prompt 8: labels 0, 1 with
    equal predictions: half. Prompt 9: equal labels, no pair; prompt 2: one label is missing. (2 + 0.5) / 4."""
    ids = torch.tensor([5, 8, 5, 5, 8, 9, 9, 2, 2])
    labels = torch.tensor([1.0, 0.0, 2.0, 3.0, 1.0, 4.0, 4.0, 1.0, NAN])
    predictions = torch.tensor([0.0, 7.0, 2.0, 1.0, 7.0, 1.0, 2.0, 0.0, 1.0])
    found = agreement(predictions, labels, ids)
    assert (found.share, found.pairs) == (2.5 / 4, 4)
    nothing = agreement(predictions[:1], labels[:1], ids[:1])
    assert math.isnan(nothing.share)
    assert agreement(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64)).pairs == 0


def test_levels_by_hand():
    rows = by_level(torch.tensor([0.5, 1.5, 9.0, 2.0]), torch.tensor([0.0, 0.2, NAN, 2.0]), [0.0, 1.0, 2.0])
    assert [(row.label, row.count) for row in rows] == [(0.0, 2), (1.0, 0), (2.0, 1)]
    assert (rows[0].predicted, rows[2].predicted) == (1.0, 2.0)
    assert math.isnan(rows[1].predicted)
