"""Held-out differences: pairing, rates, intervals."""

import math

import pytest

from align.report.gains import gains, pair_rows
from align.report.records import Evaluation, EvaluationRow, Interval


def rows(values, group="all", prompts=None):
    names = prompts or [f"prompt {i}" for i in range(len(values))]
    return tuple(
        EvaluationRow(prompt=name, group=group, seed=0, rewards={"r": value})
        for name, value in zip(names, values, strict=True)
    )


def evaluation(step, found, classes=()):
    def mean(chosen):
        values = [row.rewards["r"] for row in chosen if math.isfinite(row.rewards["r"])]
        return {"r": Interval(mean=sum(values) / len(values), low=0.0, high=1.0, n=len(values))}

    return Evaluation(
        step=step,
        weights="raw",
        rewards=mean(found),
        classes={name: mean([row for row in found if row.group == name]) for name in classes},
        rows=tuple(found),
        pictures=(),
    )


def test_difference_by_hand():
    """Before 0 0 1 1, after 1 0 1 1: one of four improves, a mean difference of 1/4; all are 0 or 1: a rate."""
    (gain,) = gains(evaluation(0, rows([0.0, 0.0, 1.0, 1.0])), evaluation(9, rows([1.0, 0.0, 1.0, 1.0])))
    assert gain.difference.mean == pytest.approx(0.25)
    assert gain.difference.low <= 0.25 <= gain.difference.high
    assert gain.is_rate
    assert gain.difference.n == 4


def test_equal_gains_have_an_interval_of_no_width():
    """Every pair rises by 0.5, however different the rows are: pairing removes the spread between prompts."""
    (gain,) = gains(evaluation(0, rows([0.0, 0.3, 9.0])), evaluation(1, rows([0.5, 0.8, 9.5])))
    assert (gain.difference.low, gain.difference.high) == pytest.approx((0.5, 0.5))
    assert not gain.is_rate


def test_a_rounding_error_is_no_loss():
    """0.83333331 is 5/6 in float32, 2e-8 below it: the difference and both ends of its interval are exactly 0."""
    (gain,) = gains(evaluation(0, rows([5 / 6, 5 / 6])), evaluation(1, rows([0.83333331, 0.83333331])))
    assert (gain.difference.mean, gain.difference.low, gain.difference.high) == (0.0, 0.0, 0.0)


def test_each_class_has_its_own_gain():
    before = rows([0.0, 0.0], "a", ["p", "q"]) + rows([1.0, 1.0], "b", ["s", "t"])
    after = rows([1.0, 1.0], "a", ["p", "q"]) + rows([1.0, 0.0], "b", ["s", "t"])
    found = {
        gain.group: gain.difference.mean for gain in gains(evaluation(0, before, "ab"), evaluation(1, after, "ab"))
    }
    assert found == pytest.approx({"all": 0.25, "a": 1.0, "b": -0.5})


def test_an_unscored_row_leaves_the_pairs():
    (gain,) = gains(evaluation(0, rows([0.0, math.nan, 0.5])), evaluation(1, rows([1.0, 1.0, math.nan])))
    assert gain.difference.n == 1
    assert gain.difference.mean == 1.0
    assert math.isnan(gain.difference.low)


def test_rows_pair_by_prompt_and_seed_when_the_lists_differ():
    before, after = rows([1.0, 2.0, 3.0]), rows([4.0, 5.0], prompts=["prompt 2", "another"])
    assert [(one.rewards["r"], two.rewards["r"]) for one, two in pair_rows(before, after)] == [(3.0, 4.0)]


def test_a_prompt_that_stands_twice_pairs_by_position():
    before, after = rows([1.0, 2.0], prompts=["p", "p"]), rows([3.0, 5.0], prompts=["p", "p"])
    assert [two.rewards["r"] - one.rewards["r"] for one, two in pair_rows(before, after)] == [2.0, 3.0]


def test_pictures_of_one_prompt_are_not_independent():
    """Eight seeds of two prompts that move together leave two observations: the interval must be wider than of 16."""
    apart = gains(evaluation(0, rows([0.0] * 16)), evaluation(1, rows([1.0] * 8 + [0.0] * 8)))[0].difference
    names = ["p"] * 8 + ["q"] * 8
    together = gains(
        evaluation(0, rows([0.0] * 16, prompts=names)), evaluation(1, rows([1.0] * 8 + [0.0] * 8, prompts=names))
    )
    assert together[0].difference.high - together[0].difference.low > 1.5 * (apart.high - apart.low)
