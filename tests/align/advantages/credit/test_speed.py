"""Time per batch grows with the number of tokens and not faster. Ratios within one process; figures: benchmarks."""

import time

import pytest
import torch

from align.advantages import AdvantageInputs, estimate


def batch(tokens, n=128):
    """Groups of 16 that share a quarter of their tokens, pairs that share three quarters."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 32000, (n, tokens), generator=generator)
    for size, share in ((16, 0.25), (2, 0.75)):
        leader = torch.arange(n) // size * size
        ids[:, : int(share * tokens)] = ids[leader, : int(share * tokens)]
    rewards = torch.rand(n, generator=generator)
    return AdvantageInputs(rewards=rewards, group_ids=torch.arange(n) // 16, mask=torch.ones(n, tokens), token_ids=ids)


def cost(kind, inputs):
    """Least processor time of three runs, in seconds: other work on the machine only adds."""
    times = []
    for _ in range(3):
        start = time.process_time()
        estimate(kind, inputs)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("kind", ["tempo", "salt", "spo_tree"])
def test_four_times_the_tokens_cost_far_less_than_sixteen_times_the_time(kind):
    short, long = batch(256), batch(1024)
    assert cost(kind, long) < 8 * cost(kind, short)
