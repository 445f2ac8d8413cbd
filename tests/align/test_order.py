"""Rank and quantile within groups, against plain counting and numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.order import group_median, group_quantile, group_rank, spearman

NAN = math.nan


def test_rank_by_hand():
    """Group 0: 5 1 1 -> 3, 1.5, 1.5. Group -9: 2, NaN -> 1, none."""
    found = group_rank(torch.tensor([5.0, 2.0, 1.0, NAN, 1.0]), torch.tensor([0, -9, 0, -9, 0]))
    assert_close(found, torch.tensor([3.0, 1.0, 1.5, NAN, 1.5], dtype=torch.float64), equal_nan=True)


def test_quantile_by_hand():
    """Of 1 2 4: the median is 2; at 0.75 the position is 1.5, between 2 and 4. A group without a value has none."""
    values, ids = torch.tensor([4.0, NAN, 1.0, 2.0]), torch.tensor([3, 8, 3, 3])
    assert_close(group_median(values, ids), torch.tensor([2.0, NAN, 2.0, 2.0], dtype=torch.float64), equal_nan=True)
    assert group_quantile(values, ids, 0.75)[0] == 3.0


@given(
    rows=st.lists(st.tuples(st.integers(-4, 4) | st.just(None), st.integers(0, 3)), max_size=20),
    q=st.floats(0, 1),
)
def test_quantile_against_numpy(rows, q):
    values = torch.tensor([NAN if value is None else float(value) for value, _ in rows], dtype=torch.float64)
    ids = torch.tensor([group for _, group in rows], dtype=torch.int64)
    found = group_quantile(values, ids, q)
    for group in set(ids.tolist()):
        mine = values[ids == group]
        scored = mine[~mine.isnan()].numpy()
        expected = np.quantile(scored, q) if len(scored) else NAN
        assert found[ids == group].tolist() == pytest.approx([expected] * len(mine), nan_ok=True)


def test_empty_and_mistakes():
    nothing = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert group_rank(*nothing).shape == (0,)
    assert group_quantile(*nothing, 0.5).shape == (0,)
    with pytest.raises(ValueError, match="`q` must be between 0 and 1, found 2"):
        group_quantile(*nothing, 2.0)


class TestSpearman:
    def test_by_hand(self):
        """Ranks 1, 2, 3, 4 against 1, 2.5, 2.5, 4; centred, their product is 4.5, their squares 5 and 4.5."""
        found = spearman(torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([0.0, 5.0, 5.0, 6.0]))
        assert found.item() == pytest.approx(4.5 / (5 * 4.5) ** 0.5)

    def test_rows_with_a_gap_are_left_out_and_monotone_maps_change_nothing(self):
        a = torch.tensor([3.0, 1.0, math.nan, 2.0, 0.0])
        b = torch.tensor([1.0, 3.0, 9.0, math.nan, 4.0])
        assert spearman(a, b).item() == pytest.approx(-1.0)
        assert spearman(a.exp(), b**3).item() == pytest.approx(-1.0)

    def test_a_constant_has_none(self):
        assert spearman(torch.ones(3), torch.arange(3.0)).isnan()
        assert spearman(torch.ones(0), torch.ones(0)).isnan()
