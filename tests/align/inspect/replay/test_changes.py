"""How two sets of advantages differ: by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.inspect.replay.changes import compare, shift

IDS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_by_hand():
    """Prompt 0 turns round (3 of 3 pairs, another best); prompt 1 keeps its order, its middle sample goes from 0 up.

    Signs: the first and the third of prompt 0. Deviations before (-1, 0, 1, -1, 0, 1), after (1, 0, -1, -1, 0, 1) once
    prompt 1's (-1, 0.5, 2) is centred to (-1.5, 0, 1.5): sum of products -2 + 3 = 1, squares 4 and 2 + 4.5 = 6.5.
    """
    before = torch.tensor([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0])
    after = torch.tensor([1.0, 0.0, -1.0, -1.0, 0.5, 2.0])
    found = compare(before, after, IDS)
    assert found.samples == 6
    assert (found.flipped, found.silenced, found.woken) == pytest.approx((2 / 6, 0, 1 / 6))
    assert (found.reordered, found.other_best) == pytest.approx((3 / 6, 1 / 2))
    assert found.correlation == pytest.approx(1 / math.sqrt(4 * 6.5))
    assert found.rank_correlation == pytest.approx(0)


def test_nothing_left():
    """All advantages 0: no order to speak of."""
    found = compare(torch.tensor([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]), torch.zeros(6), IDS)
    assert found.silenced == pytest.approx(4 / 6)
    assert all(math.isnan(value) for value in (found.reordered, found.other_best, found.correlation))


@given(seed=st.integers(0, 20), scale=st.floats(0.1, 10))
def test_the_unit_of_the_advantages_does_not_matter(seed, scale):
    before = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = compare(before, scale * before, IDS)
    assert found[1:6] == (0, 0, 0, 0, 0)
    assert found.correlation == pytest.approx(1)
    assert shift(before, scale * before).abs().max() < 1e-12


def test_shift_by_hand():
    """Root mean squares 1 and 2: 2/2 - (-1)/1 = 2 for the first, -2/2 - 1 = -2 for the second."""
    assert shift(torch.tensor([-1.0, 1.0]), torch.tensor([2.0, -2.0])).tolist() == [2.0, -2.0]
    assert shift(torch.tensor([-1.0, 1.0]), torch.zeros(2)).tolist() == [1.0, -1.0]


def test_ties_for_the_best():
    """Both of two best samples are best before; one of them is afterwards: no other best."""
    found = compare(torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0, 0, 0]))
    assert found.other_best == 0
