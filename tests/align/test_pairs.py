"""Groups to pairs: by hand, against a loop, and what never makes a pair."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.pairs import all_pairs, best_and_worst, dominating_pairs

NAN = math.nan
IDS = torch.tensor([5, 2, 5, 2, 5, 9])


def listed(pairs):
    return list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.margin.tolist(), strict=True))


def test_best_and_worst_by_hand():
    """Group 2: rows 1 and 3 with 4 and 1. Group 5: rows 0 2 4 with 2 7 2; the first 2 is rejected. Group 9 is alone."""
    found = best_and_worst(torch.tensor([2.0, 4.0, 7.0, 1.0, 2.0, 3.0]), IDS)
    assert listed(found) == [(1, 3, 3.0), (2, 0, 5.0)]
    assert listed(best_and_worst(torch.tensor([2.0, 4.0, 7.0, 1.0, 2.0, 3.0]), IDS, min_margin=4.0)) == [(2, 0, 5.0)]


def test_unscored_and_equal_samples_make_no_pair():
    found = best_and_worst(torch.tensor([2.0, NAN, 7.0, 1.0, NAN, NAN]), IDS)
    assert listed(found) == [(2, 0, 5.0)]
    assert len(best_and_worst(torch.ones(6), IDS)) == 0
    assert len(all_pairs(torch.ones(6), IDS)) == 0
    assert len(best_and_worst(torch.full((6,), NAN), IDS)) == 0
    assert len(all_pairs(torch.zeros(0), torch.zeros(0, dtype=torch.int64))) == 0


@given(
    rows=st.lists(st.tuples(st.integers(0, 4) | st.just(None), st.integers(0, 2)), max_size=10),
    margin=st.sampled_from([0.0, 2.0]),
)
def test_against_a_loop(rows, margin):
    scores = torch.tensor([NAN if score is None else float(score) for score, _ in rows])
    ids = torch.tensor([group for _, group in rows], dtype=torch.int64)
    expected = {
        (i, j)
        for i, j in itertools.permutations(range(len(rows)), 2)
        if rows[i][1] == rows[j][1] and None not in (rows[i][0], rows[j][0])
        if rows[i][0] > rows[j][0] and rows[i][0] - rows[j][0] >= margin
    }
    found = all_pairs(scores, ids, min_margin=margin)
    assert {(i, j) for i, j, _ in listed(found)} == expected
    assert len(found) == len(expected)
    for i, j, gap in listed(best_and_worst(scores, ids, min_margin=margin)):
        mates = [score for score, group in rows if group == rows[i][1] and score is not None]
        assert (rows[i][0], rows[j][0]) == (max(mates), min(mates))
        assert gap == max(mates) - min(mates)


def test_dominating_pairs_by_hand():
    """(2,2) dominates (1,2) and (1,1), (1,2) dominates (1,1); (3,0) trades; the last one is in another group."""
    points = torch.tensor([[2.0, 2.0], [1.0, 2.0], [1.0, 1.0], [3.0, 0.0], [NAN, 0.0], [0.0, 0.0]])
    found = dominating_pairs(points, torch.tensor([0, 0, 0, 0, 0, 1]))
    assert listed(found) == [(0, 1, 1.0), (0, 2, 2.0), (1, 2, 1.0)]


def test_weights_cannot_turn_a_dominating_pair_round():
    points = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    found = dominating_pairs(points, torch.arange(30) % 3)
    assert len(found) > 5
    for weights in torch.rand(20, 3, generator=torch.Generator().manual_seed(1)):
        scores = points @ weights
        assert (scores[found.chosen] > scores[found.rejected]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: all_pairs(torch.ones(2), torch.zeros(2, dtype=torch.int64), min_margin=-1.0), "must not be negative"),
        (lambda: all_pairs(torch.ones(2), torch.zeros(2, dtype=torch.int64), min_margin=NAN), "must not be negative"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
