"""Rows of steps and processes: every row once before any twice, whatever the sizes; slices that add up."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers

from align.engine.epochs import epoch_rows, process_rows


@given(rows=integers(3, 20), share=integers(1, 20), seed=integers(0, 9))
def test_every_row_is_used_once_before_any_is_used_again(rows, share, seed):
    per_step = min(rows, share)
    counts = torch.zeros(rows, dtype=torch.int64)
    for step in range(12):
        drawn = epoch_rows(rows, per_step, seed, step, "pairs")
        assert len(drawn.unique()) == per_step
        counts[drawn] += 1
        assert counts.max() - counts.min() <= 1


def test_streams_and_seeds_shuffle_apart():
    orders = {
        tuple(epoch_rows(40, 40, seed, 0, stream).tolist()) for seed in (0, 1) for stream in ("pairs", "prompt_order")
    }
    assert len(orders) == 4


def test_slices_of_processes_by_hand():
    """10 rows in 2 updates of 5; three processes take 1, 2 and 2 rows of each: [0], [1, 2], [3, 4] and 5 further."""
    parts = [process_rows(10, 2, rank, 3).tolist() for rank in range(3)]
    assert parts == [[0, 5], [1, 2, 6, 7], [3, 4, 8, 9]]


def test_more_rows_in_a_step_than_there_are_is_refused():
    with pytest.raises(ValueError, match="per_step <= rows"):
        epoch_rows(3, 4, 0, 0, "pairs")
