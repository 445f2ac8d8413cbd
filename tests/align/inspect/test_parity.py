"""Parity across groups: by hand, bounds, and what it must ignore."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.inspect.parity import gini, group_means, parity

AMOUNTS = st.lists(st.floats(0, 100), min_size=1, max_size=12)


def test_by_hand():
    """Means 1, 2, 3, 6: mean 3; place of the 20 % quantile 0.2 * 3 = 0.6, so 1.6.

    Sum of differences over ordered pairs: 2 (1 + 2 + 5 + 1 + 4 + 3) = 32; G = 32 / (2 * 16 * 3) = 1/3.
    """
    assert parity(torch.tensor([3.0, 1.0, 6.0, 2.0])) == pytest.approx((3, 1, 1.6, 1 / 3))


def test_means_count_every_group_once():
    """Three samples of group 7, one of group 2; a group without a score is no group."""
    values = torch.tensor([1.0, 2.0, 5.0, 3.0, math.nan])
    assert group_means(values, torch.tensor([7, 7, 2, 7, 9])).tolist() == [2.0, 5.0]
    assert len(group_means(values[4:], torch.tensor([9]))) == 0
    with pytest.raises(ValueError, match="no group has a score"):
        parity(torch.zeros(0))


def test_ends_of_the_gini_coefficient():
    assert gini(torch.tensor([0.1] * 7)) == 0
    assert gini(torch.zeros(3)) == 0
    assert gini(torch.tensor([0.0, 0.0, 0.0, 5.0])) == pytest.approx(3 / 4)
    assert math.isnan(gini(torch.tensor([-1.0, 2.0])))


@given(amounts=AMOUNTS, scale=st.floats(0.1, 10), give=st.floats(0, 5))
def test_the_unit_does_not_matter_and_a_gift_to_all_makes_more_equal(amounts, scale, give):
    x = torch.tensor(amounts, dtype=torch.float64)
    found = gini(x)
    assert -1e-12 <= found <= (len(x) - 1) / len(x) + 1e-12
    assert gini(scale * x) == pytest.approx(found, abs=1e-9)
    assert gini(x + give) <= found + 1e-9
    assert parity(x).worst <= parity(x).low + 1e-9
