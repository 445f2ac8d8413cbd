"""Who shares noise with whom."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers

from align.engine.random import generator
from diffusion.branches import Nodes, noise_keys

GROUPS = torch.tensor([7, 3, 7, 3, 3, 7, 7, 3])
"""Group 7 has rows 0, 2, 5, 6; group 3 has rows 1, 3, 4, 7."""


def test_a_tree_by_hand():
    """Splits at steps 1 and 2 of 4, factor 2: all share until step 0, then pairs, then everyone alone.

    Group 7: 0 0 0 0 | 0 0 5 5 | 0 2 5 6.   Group 3: 1 1 1 1 | 1 1 4 4 | 1 3 4 7.
    """
    keys = noise_keys(GROUPS, 4, splits=[1, 2], factor=2)
    together = [0, 1, 0, 1, 1, 0, 0, 1]
    assert keys[:, 0].tolist() == together  # initial noise
    assert keys[:, 1].tolist() == together  # step 0
    assert keys[:, 2].tolist() == [0, 1, 0, 1, 4, 5, 5, 4]
    assert keys[:, 3].tolist() == list(range(8))
    assert keys[:, 4].tolist() == list(range(8))


def test_only_the_initial_noise_shared():
    keys = noise_keys(GROUPS, 2, share_initial=True)
    assert keys[:, 0].tolist() == [0, 1, 0, 1, 1, 0, 0, 1]
    assert (keys[:, 1:] == torch.arange(8)[:, None]).all()


def test_nothing_shared_is_every_row_by_itself():
    assert (noise_keys(GROUPS, 2) == torch.arange(8)[:, None]).all()


@given(levels=integers(1, 3), factor=integers(2, 3), groups=integers(1, 3), seed=integers(0, 99))
def test_a_tree_only_ever_gets_finer(levels, factor, groups, seed):
    """Rows with equal keys in a column have equal keys in every earlier one; a key is a row of the same group."""
    ids = torch.arange(groups).repeat(factor**levels)
    ids = ids[torch.randperm(len(ids), generator=generator(seed, "branches"))]
    keys = noise_keys(ids, 2 * levels, splits=range(0, 2 * levels, 2), factor=factor)
    for column in range(1, keys.shape[1]):
        same = keys[:, column][:, None] == keys[:, column][None]
        assert (keys[:, column - 1][:, None] == keys[:, column - 1][None])[same].all()
        assert (ids[keys[:, column]] == ids).all()
    assert keys[:, -1].tolist() == list(range(len(ids)))
    assert len(keys[:, 0].unique()) == groups


def test_nodes_keep_the_order_of_appearance():
    nodes = Nodes.of(torch.tensor([9, 4, 9, 1, 4]))
    assert nodes.first.tolist() == [0, 1, 3]
    assert nodes.of_row.tolist() == [0, 1, 0, 2, 1]
    assert nodes.spread(torch.tensor([10.0, 20.0, 30.0])).tolist() == [10, 20, 10, 30, 20]


def test_trees_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"2 splits into 3 branches make 9 leaves, found groups of 4"):
        noise_keys(GROUPS, 4, splits=[0, 1], factor=3)
    with pytest.raises(ValueError, match=r"groups of one size, found sizes \[1, 2\]"):
        noise_keys(torch.tensor([0, 0, 1]), 4, share_initial=True)
