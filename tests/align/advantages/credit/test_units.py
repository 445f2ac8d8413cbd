"""Positions to units and back, and backward recursions that skip masked positions."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages.credit import scan, units

TRAINED = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]]) != 0


def test_turns_from_labels_ends_and_runs():
    """Row 0: positions 0 1 | 3 | 4. A label may come back after a hole; labels at masked positions do not matter."""
    labels = torch.tensor([[4, 4, 99, 7, 8, 99], [99, 0, 1, 1, 99, 99]])
    assert units.units_from_labels(labels, TRAINED).tolist() == [[0, 0, -1, 1, 2, -1], [-1, 0, 1, 1, -1, -1]]
    ends = torch.tensor([[0, 1, 1, 1, 0, 1], [1, 1, 0, 0, 0, 0]]) != 0
    assert units.units_from_ends(ends, TRAINED).tolist() == [[0, 0, -1, 1, 2, -1], [-1, 0, 1, 1, -1, -1]]
    assert units.runs(TRAINED).tolist() == [[0, 0, -1, 1, 1, -1], [-1, 0, 0, 0, -1, -1]]


def test_sums_and_broadcast_by_hand():
    """Row 0 units 0 0 - 1 1 - of 1 2 9 4 5 9: sums 3 and 9. Row 1 has one unit of 2 + 3 + 4 = 9."""
    number = units.runs(TRAINED)
    values = torch.tensor([[1.0, 2, 9, 4, 5, 9], [9.0, 2, 3, 4, 9, 9]])
    sums = units.unit_sum(values, number)
    assert sums.tolist() == [[3, 9], [9, 0]]
    assert units.unit_exists(number).tolist() == [[True, True], [True, False]]
    assert units.last_of_units(number).tolist() == [[1, 4], [3, -1]]
    assert units.broadcast(sums, number).tolist() == [[3, 3, 0, 9, 9, 0], [0, 9, 9, 9, 0, 0]]
    assert units.at_last(torch.tensor([7.0, 8.0]), TRAINED).tolist() == [[0, 0, 0, 0, 7, 0], [0, 0, 0, 8, 0, 0]]
    assert units.last_position(torch.zeros(1, 3) != 0).tolist() == [-1]


def test_scan_by_hand():
    """Factor 1/2 on 1 2 - 4 8: 8, 4 + 4 = 8, (hole) 8, 2 + 4 = 6, 1 + 3 = 4."""
    delta = torch.tensor([[1.0, 2, 50, 4, 8, 50]])
    skipped = scan.masked_discounted_scan(delta, TRAINED[:1], 0.5)
    assert skipped.tolist() == [[4, 6, 8, 8, 8, 0]]
    restarted = scan.restarting_scan(torch.where(TRAINED[:1], delta, 0.0), TRAINED[:1], 0.5)
    assert restarted.tolist() == [[2, 2, 4, 8, 8, 0]]  # position 2 still sees position 3; position 1 sees nothing
    assert scan.next_true(TRAINED).tolist() == [[1, 3, 3, 4, 6, 6], [1, 2, 3, 6, 6, 6]]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), factors=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_scan_against_a_slow_loop(seed, factors):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 7, generator=generator) < 0.6
    found = scan.masked_discounted_scan(delta, mask, torch.tensor(factors, dtype=torch.float64))
    for i, factor in enumerate(factors):
        for t in range(7):
            places = [u for u in range(t, 7) if mask[i, u]]
            expected = sum(factor**k * float(delta[i, u]) for k, u in enumerate(places))
            assert_close(float(found[i, t]), float(expected), rtol=1e-12, atol=1e-12)
