"""Which pairs a step reads."""

import pytest
import torch

from align.errors import AlignError
from preference.sampler import PairSampler


def test_a_step_is_a_function_of_seed_and_number():
    sampler = PairSampler(pairs=10, per_step=4, seed=3)
    again = PairSampler(pairs=10, per_step=4, seed=3)
    assert [sampler(step).rows.tolist() for step in (1, 2, 3)] == [again(step).rows.tolist() for step in (1, 2, 3)]
    other = PairSampler(pairs=10, per_step=4, seed=4)
    assert sampler(1).rows.tolist() != other(1).rows.tolist()


def test_every_pair_once_before_any_twice():
    """5 steps of 4 are two epochs of 10: every pair is read twice."""
    sampler = PairSampler(pairs=10, per_step=4, seed=0)
    rows = torch.cat([sampler(step).rows for step in range(1, 6)])
    assert rows.bincount().tolist() == [2] * 10


@pytest.mark.parametrize("updates", [1, 2])
def test_processes_share_every_update_of_a_step(updates):
    """Own rows of both processes, update by update, are the rows of that update."""
    everyone = [PairSampler(pairs=12, per_step=6, seed=0, updates=updates, rank=rank, world=2) for rank in (0, 1)]
    whole = everyone[0](2)
    cuts = [sampler(2).own.tensor_split(updates) for sampler in everyone]
    for update in range(updates):
        assert torch.cat([cut[update] for cut in cuts]).tolist() == whole.of_update(update).tolist()


def test_what_some_steps_read():
    sampler = PairSampler(pairs=10, per_step=3, seed=0)
    read = sampler.read_in([1, 2])
    assert read.tolist() == sorted({*sampler(1).rows.tolist(), *sampler(2).rows.tolist()})
    assert sampler.read_in(range(1, 5)).tolist() == list(range(10))


def test_fewer_pairs_than_a_step_reads():
    with pytest.raises(AlignError, match="a step reads 8 different pairs, and the data has 5"):
        PairSampler(pairs=5, per_step=8, seed=0)
