"""Dominance, front, hypervolume, grids: by hand, against definitions, and invariants."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping import pareto

NAN = math.nan
point = st.tuples(st.integers(0, 4), st.integers(0, 4))
cloud = st.lists(point, min_size=1, max_size=8)


def test_front_by_hand():
    """(3,1) (1,3) (2,2) are on it; (1,1) is below all, (2,1) below two, the copy of (2,2) counts but is listed once."""
    points = torch.tensor([[2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [1.0, 3.0], [2.0, 1.0], [2.0, 2.0], [9.0, NAN]])
    assert pareto.non_dominated(points).tolist() == [True, True, False, True, False, True, False]
    assert pareto.front(points).tolist() == [1, 0, 3]


@given(points=cloud)
def test_non_dominated_against_the_definition(points):
    def dominated(p):
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    assert pareto.non_dominated(torch.tensor(points).double()).tolist() == [not dominated(p) for p in points]


def test_non_dominated_in_blocks(monkeypatch):
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    whole = pareto.non_dominated(points)
    monkeypatch.setattr(pareto, "BLOCK", 1)
    assert torch.equal(pareto.non_dominated(points), whole)


def test_hypervolume_by_hand():
    """Reference 0: (3,1) (1,3) (2,2): 3*1 + 2*1 + 1*1 = 6. Points at or below the reference add nothing."""
    points = [[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]
    assert pareto.hypervolume(points, [0.0, 0.0]) == 6.0
    assert pareto.hypervolume([*points, [5.0, 0.0], [-1.0, 9.0]], [0.0, 0.0]) == 6.0
    assert pareto.hypervolume(torch.tensor(points), torch.tensor([0.0, 0.0])) == 6.0
    assert pareto.hypervolume([[4.0], [7.0]], [5.0]) == 2.0
    assert pareto.hypervolume(torch.zeros(0, 2), [0.0, 0.0]) == 0.0
    assert pareto.hypervolume([[NAN, 3.0]], [0.0, 0.0]) == 0.0


def test_hypervolume_in_three_dimensions_by_hand():
    """Boxes 2x1x1 and 1x2x1 and 1x1x2 share the unit cube: 2 + 2 + 2 - 2 * 1 = 4."""
    points = [[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]
    assert pareto.hypervolume(points, [0.0, 0.0, 0.0]) == pytest.approx(4.0)
    assert pareto.hypervolume([[2.0, 3.0, 4.0, 5.0]], [1.0] * 4) == pytest.approx(1 * 2 * 3 * 4)


@given(points=cloud)
def test_hypervolume_against_counting_cells(points):
    cells = {cell for x, y in points for cell in itertools.product(range(x), range(y))}
    assert pareto.hypervolume(torch.tensor(points).double(), [0.0, 0.0]) == len(cells)


@given(points=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=6))
def test_hypervolume_of_three_against_counting_cells(points):
    cells = {cell for p in points for cell in itertools.product(*map(range, p))}
    assert pareto.hypervolume(torch.tensor(points).double(), [0.0] * 3) == pytest.approx(len(cells))


@given(points=cloud, extra=point, a=st.floats(0.25, 4), b=st.floats(-3, 3))
def test_hypervolume_invariants(points, extra, a, b):
    """Order and duplicates do not matter; a point never takes away; scaling scales."""
    table, zero = torch.tensor(points, dtype=torch.float64), [0.0, 0.0]
    volume = pareto.hypervolume(table, zero)
    assert pareto.hypervolume(torch.cat([table.flip(0), table]), zero) == volume
    assert pareto.hypervolume([*points, extra], zero) >= volume
    moved = pareto.hypervolume(table * torch.tensor([a, 1.0]) + b, [b, b])
    assert moved == pytest.approx(a * volume, abs=1e-6)
    alone = pareto.hypervolume([extra], zero)
    assert pareto.hypervolume([*points, extra], zero) <= volume + alone


def test_monte_carlo_finds_the_exact_volume():
    points = torch.rand(20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    exact = pareto.hypervolume(points, [0.0] * 4)
    estimate, error = pareto.hypervolume_monte_carlo(points, [0.0] * 4, draws=20_000)
    assert abs(estimate - exact) < 4 * error
    assert 0 < error < 0.01
    assert pareto.hypervolume_monte_carlo(torch.zeros(1, 2), [1.0, 1.0]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("points", "reference", "message"),
    [
        ([[1.0, 2.0]], [0.0], "expected a reference of 2 objectives, found 1"),
        ([[1.0, 2.0]], [0.0, NAN], "the reference must be finite"),
        ([[1.0, math.inf]], [0.0, 0.0], "a point is infinite"),
        ([[1.0] * 7], [0.0] * 7, "at most 6 objectives, found 7"),
        ([1.0, 2.0], [0.0], r"expected points of shape \[n, k\], found \[2\]"),
    ],
)
def test_mistakes(points, reference, message):
    with pytest.raises(ValueError, match=message):
        pareto.hypervolume(points, reference)


def test_simplex_grid_by_hand():
    expected = [[0, 0, 2], [0, 1, 1], [0, 2, 0], [1, 0, 1], [1, 1, 0], [2, 0, 0]]
    assert (2 * pareto.simplex_grid(3, 2)).tolist() == expected
    assert pareto.simplex_grid(1, 4).tolist() == [[1.0]]
    assert len(pareto.simplex_grid(4, 5)) == math.comb(8, 3)
    with pytest.raises(ValueError, match="at least 1 objective and 1 division, found 0 and 2"):
        pareto.simplex_grid(0, 2)


def test_unit_box():
    found = pareto.in_unit_box([[5.0, 0.0]], [0.0, -1.0], [10.0, 1.0])
    assert_close(found, torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    with pytest.raises(ValueError, match="`low` below `high`"):
        pareto.in_unit_box([[5.0]], [1.0], [1.0])
