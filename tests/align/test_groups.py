"""Statistics within groups: by hand, against a slow loop, and at the ends of what ids and values can be."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from align.groups import (
    check_ids,
    group_codes,
    group_count,
    group_first,
    group_is_constant,
    group_max,
    group_mean,
    group_min,
    group_rank,
    group_size,
    group_std,
    scoped_ids,
)

NAN = math.nan
VALUES = torch.tensor([1.0, 4.0, 2.0, 0.0, 6.0])
IDS = torch.tensor([7, -3, 7, -3, 7])  # interleaved, unequal, negative


def test_statistics_by_hand():
    """Group 7 holds 1, 2, 6: mean 3, deviations -2 -1 3, squares 14, std sqrt(14/2) = sqrt 7, population sqrt(14/3).

    Group -3 holds 4, 0: mean 2, deviations 2 -2, squares 8, std sqrt 8, population sqrt 4 = 2.
    """
    assert group_size(IDS).tolist() == [3, 2, 3, 2, 3]
    assert group_mean(VALUES, IDS).tolist() == [3.0, 2.0, 3.0, 2.0, 3.0]
    assert group_min(VALUES, IDS).tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert group_max(VALUES, IDS).tolist() == [6.0, 4.0, 6.0, 4.0, 6.0]
    unbiased = [math.sqrt(7), math.sqrt(8), math.sqrt(7), math.sqrt(8), math.sqrt(7)]
    population = [math.sqrt(14 / 3), 2.0, math.sqrt(14 / 3), 2.0, math.sqrt(14 / 3)]
    assert_close(group_std(VALUES, IDS), torch.tensor(unbiased, dtype=torch.float64))
    assert_close(group_std(VALUES, IDS, unbiased=False), torch.tensor(population, dtype=torch.float64))


def test_nan_and_excluded_samples_leave_every_statistic():
    """Group 0 holds 2, NaN, 4 and an excluded 100: count of `where` 3, mean 3, std sqrt 2, min 2, max 4."""
    values = torch.tensor([2.0, NAN, 4.0, 100.0])
    ids = torch.zeros(4, dtype=torch.int64)
    where = torch.tensor([True, True, True, False])
    assert group_size(ids, where).tolist() == [3] * 4
    assert group_mean(values, ids, where).tolist() == [3.0] * 4
    assert_close(group_std(values, ids, where=where), torch.full((4,), math.sqrt(2), dtype=torch.float64))
    assert group_min(values, ids, where).tolist() == [2.0] * 4
    assert group_max(values, ids, where).tolist() == [4.0] * 4


def test_a_group_without_a_value():
    values, ids = torch.tensor([NAN, NAN, 1.0]), torch.tensor([0, 0, 1])
    assert group_mean(values, ids).isnan().tolist() == [True, True, False]
    assert group_std(values, ids).tolist() == [0.0, 0.0, 0.0]
    assert group_min(values, ids).tolist() == [math.inf, math.inf, 1.0]
    assert group_max(values, ids).tolist() == [-math.inf, -math.inf, 1.0]
    assert group_is_constant(values, ids).tolist() == [False, False, True]


def test_constant_means_equal_stored_numbers():
    """Fifteen times 98.3 is constant, whatever its standard deviation rounds to; one last-bit change is not."""
    values = torch.full((15,), 98.3)
    ids = torch.zeros(15, dtype=torch.int64)
    assert group_is_constant(values, ids).all()
    values[3] = torch.nextafter(values[3], torch.tensor(99.0))
    assert not group_is_constant(values, ids).any()


def test_equal_float32_numbers_have_no_spread():
    """In float64 fifteen times a float32 number is exact, and so is its fifteenth part; in float32 neither is."""
    values, ids = torch.full((15,), 98.3), torch.zeros(15, dtype=torch.int64)
    assert (group_std(values, ids) == 0).all()
    assert (group_mean(values, ids) == values.double()).all()


def test_no_samples():
    nothing, ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert group_codes(ids)[1] == 0
    for statistic in (group_mean, group_std, group_min, group_max, group_is_constant):
        assert statistic(nothing, ids).shape == (0,)
    assert group_size(ids).shape == (0,)


def test_codes_are_dense_and_ordered_by_id():
    codes, groups = group_codes(torch.tensor([50, -9, 50, 2**40]))
    assert codes.tolist() == [1, 0, 1, 2]
    assert groups == 3


def test_ids_that_float32_cannot_tell_apart():
    """2^24 and 2^24 + 1 are the same float32, as are 2^62 and 2^62 + 1; they are four groups here."""
    ids = torch.tensor([2**24, 2**24 + 1, 2**62, 2**62 + 1])
    assert group_mean(torch.tensor([1.0, 2.0, 3.0, 4.0]), ids).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_ids_must_be_integers():
    for ids in (torch.zeros(2), torch.zeros(2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="group_ids must be integers, found torch"):
            check_ids(ids)
    check_ids(torch.zeros(2, dtype=torch.int32))


def test_shapes_are_checked_while_tests_run():
    """The annotations are live (tests/conftest.py): three values cannot have two ids."""
    with pytest.raises(TypeCheckError):
        group_mean(torch.zeros(3), torch.zeros(2, dtype=torch.int64))


def test_scope_of_the_batch_is_one_group():
    assert scoped_ids(IDS, "group") is IDS
    assert group_mean(VALUES, scoped_ids(IDS, "batch")).tolist() == pytest.approx([2.6] * 5)


rows = st.lists(
    st.tuples(st.integers(-4, 4), st.one_of(st.just(NAN), st.floats(-1e6, 1e6, width=32))), min_size=1, max_size=40
)


@given(rows=rows, spread=st.sampled_from([1, 1_000_003]), unbiased=st.booleans())
def test_agrees_with_a_slow_loop(rows, spread, unbiased):
    """`spread` takes ids down both roads: nearly dense ones, and ones that must be sorted."""
    ids = torch.tensor([number * spread for number, _ in rows])
    values = torch.tensor([value for _, value in rows], dtype=torch.float32)
    means, stds, lows, highs = (
        statistic(values, ids).tolist()
        for statistic in (group_mean, lambda v, i: group_std(v, i, unbiased=unbiased), group_min, group_max)
    )
    for row, (number, _) in enumerate(rows):
        members = [float(value) for other, value in rows if other == number and not math.isnan(value)]
        if not members:
            assert math.isnan(means[row])
            continue
        deviate = statistics.stdev if unbiased else statistics.pstdev
        # relative to the size of the values: the loop and we add in different orders
        tolerance = 1e-12 * max(1.0, *map(abs, members))
        assert means[row] == pytest.approx(statistics.fmean(members), abs=tolerance)
        assert stds[row] == pytest.approx(deviate(members) if len(members) > 1 else 0.0, abs=1e3 * tolerance)
        assert (lows[row], highs[row]) == (min(members), max(members))


def test_a_million_samples():
    """Group i holds i, i + 1, ..., i + 7 up to order: mean i + 3.5, population variance (64 - 1) / 12."""
    order = torch.randperm(1_000_000, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(125_000).repeat_interleave(8)[order] * 12_345
    values = (torch.arange(125_000).repeat_interleave(8) + torch.arange(8).repeat(125_000))[order].double()
    assert_close(group_mean(values, ids), (ids // 12_345).double() + 3.5)
    assert_close(group_std(values, ids, unbiased=False), torch.full((1_000_000,), math.sqrt(63 / 12)).double())


def test_ranks_by_hand():
    """Group 5: 3 1 nan 0 -> 2 1 3 0 (NaN last); group 9: 1 2 -> 0 1."""
    values, ids = torch.tensor([3.0, 1.0, 1.0, math.nan, 2.0, 0.0]), torch.tensor([5, 5, 9, 5, 9, 5])
    assert group_rank(values, ids).tolist() == [2, 1, 0, 3, 1, 0]


def test_ties_keep_the_order_of_the_input():
    assert group_rank(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([3, 3, 3, 3])).tolist() == [2, 0, 3, 1]


@given(rows=rows)
def test_ranks_agree_with_a_slow_loop(rows):
    ids = torch.tensor([number for number, _ in rows])
    values = torch.tensor([value for _, value in rows], dtype=torch.float32).nan_to_num(nan=math.inf)
    expected = []
    for row, (number, _) in enumerate(rows):
        members = [(float(values[j]), j) for j, (other, _) in enumerate(rows) if other == number]
        expected.append(sorted(members).index((float(values[row]), row)))
    assert group_rank(values, ids).tolist() == expected


def test_one_member_of_each_group():
    assert group_first(torch.tensor([7, -2, 7, 10**15, -2])).tolist() == [True, True, False, True, False]
    assert group_first(torch.zeros(0, dtype=torch.int64)).tolist() == []


@given(ids=st.lists(st.integers(-6, 6) | st.integers(-(2**62), 2**62), max_size=12))
def test_codes_are_ranks_of_the_ids_whether_they_lie_close_or_far_apart(ids):
    codes, count = group_codes(torch.tensor(ids, dtype=torch.int64))
    ranks = {name: rank for rank, name in enumerate(sorted(set(ids)))}
    assert codes.tolist() == [ranks[name] for name in ids]
    assert count == len(ranks)
    assert group_count(torch.tensor(ids, dtype=torch.int64)) == len(ranks)


def test_groups_with_a_chosen_member_are_counted_once():
    assert group_count(IDS, torch.tensor([True, False, True, False, False])) == 1
    assert group_count(IDS, torch.tensor([True, True, True, False, False])) == 2
    assert group_count(IDS, torch.zeros(5, dtype=torch.bool)) == 0
