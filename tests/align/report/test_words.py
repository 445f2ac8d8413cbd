"""Numbers as people write them."""

import math

import pytest

from align.report import words
from align.report.gains import Gain
from align.report.records import Interval


def gain(before, after, low, high, is_rate):
    def side(mean):
        return Interval(mean=mean, low=mean, high=mean, n=4)

    difference = Interval(mean=after - before, low=low, high=high, n=4)
    return Gain(reward="r", group="all", before=side(before), after=side(after), difference=difference, is_rate=is_rate)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (-1.5, "-1.50"),
        (12345.6, "12,346"),
        (1e-5, "1.00e-05"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_three_digits(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.50 s"), (59.6, "1 min 0 s"), (12, "12 s"), (156, "2 min 36 s"), (3720, "1 h 2 min")]
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text


def test_a_rate_is_in_points():
    assert words.change(gain(0.25, 0.5, 0.125, 0.375, True)) == "+25.0 points (95 % interval +12.5 to +37.5)"


def test_both_ends_have_as_many_decimals_as_the_mean():
    assert words.change(gain(0.5, 0.64, 0.0851, 0.196, False)) == "+0.140 (95 % interval +0.085 to +0.196)"


def test_no_difference_has_decimals_too():
    assert words.change(gain(0.5, 0.5, 0.0, 0.0, False)) == "+0.000 (95 % interval +0.000 to +0.000)"


@pytest.mark.parametrize(("value", "text"), [(1.0, "1.000"), (0.984, "0.984"), (-23.456, "-23.5"), (0.0, "0")])
def test_levels_of_a_reward_have_three_decimals(value, text):
    assert words.level(value, gain(0.0, value, 0.0, 0.0, False)) == text


def test_no_interval_is_not_invented():
    alone = gain(0.5, 1.0, math.nan, math.nan, False)
    assert words.change(alone) == "+0.500"
    assert words.verdict(alone) == "too few rows to tell"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.3, "improved"), (-0.1, 0.3, "no clear change"), (-0.3, -0.1, "got worse")]
)
def test_the_verdict_is_the_interval_s(low, high, verdict):
    assert words.verdict(gain(0.5, 0.6, low, high, False)) == verdict


def test_a_number_stays_with_its_unit():
    assert words.unbroken("3 min 12 s, 95 % of 4 pictures") == "3\u00a0min 12\u00a0s, 95\u00a0% of 4 pictures"
