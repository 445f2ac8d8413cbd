"""Scales of ratings: HelpSteer's numbers, the exact inverse, what lies on a scale."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.rewards.scales import LabelScale


def test_helpsteer_becomes_the_middles_of_five_bins():
    """(l + 0.5) / 5 for l = 0..4; times 100, the 10, 30, 50, 70, 90 of the DPA reward model's card."""
    scale = LabelScale()
    assert scale.to_unit(torch.arange(5.0)).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert [scale.to_label(s / 100) for s in (68.99, 33.49)] == pytest.approx([(68.99 - 10) / 20, (33.49 - 10) / 20])


def test_one_to_ten_is_ten_bins():
    """Label 1 is level 0: 0.05; label 10 is level 9: 0.95; label 5.5 is half way: 0.5."""
    scale = LabelScale(lowest=1.0, highest=10.0, levels=10)
    assert [scale.to_unit(label) for label in (1.0, 5.5, 10.0)] == pytest.approx([0.05, 0.5, 0.95])


@given(st.floats(-100, 100), st.floats(0.1, 100), st.integers(2, 20), st.floats(-3, 4, allow_subnormal=False))
def test_the_inverse_is_exact_to_rounding(lowest, width, levels, share):
    scale = LabelScale(lowest=lowest, highest=lowest + width, levels=levels)
    label = lowest + share * width
    assert scale.to_label(scale.to_unit(label)) == pytest.approx(label, abs=1e-9 * (1 + abs(lowest) + width))
    assert LabelScale.of(scale.to_json()) == scale


def test_what_lies_on_a_scale():
    scale = LabelScale(lowest=1.0, highest=5.0, levels=5)
    assert [scale.holds(label) for label in (1.0, 5.0, 3.5, math.nan)] == [True] * 4
    assert [scale.holds(label) for label in (0.0, 5.01, math.inf, -math.inf)] == [False] * 4
    assert math.isnan(scale.to_unit(math.nan))


def test_numbers_that_make_no_scale():
    assert LabelScale().problem() is None
    assert "at least 2 levels" in (LabelScale(levels=1).problem() or "")
    assert "`lowest` must be below `highest`" in (LabelScale(lowest=4.0, highest=4.0).problem() or "")
