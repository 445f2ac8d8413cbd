"""Attainment surfaces: by hand, and against a slow loop over points and fronts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.shaping.attainment import attainment, staircase

FRONTS = torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[1.0, 2.0], [3.0, 2.0]], [[0.0, 9.0], [2.0, 0.0]]])
GRID = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])


def test_staircases_by_hand():
    """First front: up to 1 the point (1, 3) counts, up to 2 the point (2, 1), beyond nothing. The second has (3, 2)
    all the way; the third falls from 9 at 0 to 0 at 2."""
    no = -math.inf
    expected = [[3, 3, 1, no, no], [2, 2, 2, 2, no], [9, 0, 0, no, no]]
    assert staircase(FRONTS, GRID).tolist() == expected


def test_attainment_by_hand():
    """Heights by column, falling: 9 3 2 | 3 2 0 | 2 1 0 | 2 - - | - - -. One of three reaches the first, two the
    second, all the third."""
    no = -math.inf
    found = attainment(FRONTS, GRID, (1.0, 2 / 3, 1 / 3)).tolist()
    assert found == [[2, 0, 0, no, no], [3, 2, 1, no, no], [9, 3, 2, 2, no]]
    assert attainment(FRONTS, GRID, (0.5,)).tolist() == [found[1]]


def test_mistakes():
    with pytest.raises(ValueError, match="at least one front"):
        attainment(FRONTS[:0], GRID, (0.5,))
    with pytest.raises(ValueError, match=r"shares in \(0, 1\]"):
        attainment(FRONTS, GRID, (0.0,))


@given(
    st.lists(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=2, max_size=2), min_size=1, max_size=7),
    st.sampled_from([0.025, 0.3, 0.5, 0.975, 1.0]),
)
def test_at_least_the_share_reaches_the_surface_and_no_higher_step_is_reached(fronts, share):
    """Counted point by point: P(h(x) >= y) >= share at y, not above."""
    grid = torch.arange(6.0)
    (surface,) = attainment(torch.tensor(fronts).double(), grid, (share,)).tolist()
    for x, y in zip(grid.tolist(), surface, strict=True):
        heights = [max((b for a, b in front if a >= x), default=-math.inf) for front in fronts]
        assert sum(height >= y for height in heights) >= share * len(fronts) - 1e-9
        higher = [height for height in heights if height > y]
        assert len(higher) < share * len(fronts)
