from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import Tensor, nn

from align.engine.accumulation import Accumulator, MeanMetrics
from align.engine.distributed import Processes, merge_means, start_accelerator
from align.errors import AlignError
from align.types import LossOutput


@dataclass
class Rows:
    """Rows of different numbers of tokens."""

    x: Tensor
    tokens: Tensor
    samples = rewards = signal = None

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor) -> Rows:
        return Rows(self.x[rows], self.tokens[rows])

    def unit_count(self) -> int:
        return int(self.tokens.sum())


@given(rows=integers(1, 12), size=integers(1, 13), seed=integers(0, 1000))
def test_any_cut_gives_the_gradient_of_the_whole(rows: int, size: int, seed: int):
    """The loss is a mean over tokens; an independent sum in float64 over all tokens is the reference."""
    source = torch.Generator().manual_seed(seed)
    batch = Rows(
        torch.randn(rows, 3, generator=source, dtype=torch.float64), torch.randint(1, 5, (rows,), generator=source)
    )
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    accumulator = Accumulator(start_accelerator(), nn.Identity(), Processes(), micro_batch_size=size)
    accumulator.begin(batch)
    for micro in accumulator.micro_batches(batch):
        per_token = torch.sin(micro.x @ weight).repeat_interleave(micro.tokens)
        accumulator.backward(LossOutput(loss=per_token.mean().float(), count=micro.unit_count()))
    accumulator.finish()

    expected = torch.zeros(3, dtype=torch.float64)
    for x, tokens in zip(batch.x, batch.tokens.tolist()):
        expected += tokens * torch.cos(x.sum()) * x / int(batch.tokens.sum())
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-6)  # the loss is handed over in float32


def test_counts_that_do_not_fit_are_an_error():
    batch = Rows(torch.ones(4, 3), torch.ones(4, dtype=torch.int64))
    accumulator = Accumulator(start_accelerator(), nn.Identity(), Processes(), micro_batch_size=4)
    accumulator.begin(batch)
    weight = nn.Parameter(torch.ones(()))
    accumulator.backward(LossOutput(loss=weight * 1.0, count=8))
    with pytest.raises(ValueError, match="means over 8 units, its batch announced 4"):
        accumulator.finish()


def test_an_empty_update_is_an_error():
    accumulator = Accumulator(start_accelerator(), nn.Identity(), Processes(), micro_batch_size=4)
    with pytest.raises(AlignError, match="have no samples"):
        accumulator.begin(Rows(torch.ones(0, 3), torch.ones(0, dtype=torch.int64)))


def test_metrics_are_weighted_by_hand():
    """Mean 1 over 3 units and mean 5 over 1: (3 + 5) / 4 = 2. A plain number counts like a tensor."""
    metrics = MeanMetrics()
    metrics.add({"loss": torch.tensor(1.0, requires_grad=True), "plain": 4.0}, 3)
    metrics.add({"loss": torch.tensor(5.0, dtype=torch.float64)}, 1)
    sums = metrics.sums()
    assert sums == {"loss": (8.0, 4.0), "plain": (12.0, 3.0)}
    assert merge_means([sums, {"loss": (4.0, 4.0)}]) == {"loss": 1.5, "plain": 4.0}
    assert metrics.sums() == {}


def test_one_process_needs_no_group():
    processes = Processes()
    rows = torch.arange(3)
    assert processes.gather_rows(rows) is rows
    assert processes.gather_objects("x") == ["x"]
    assert processes.from_main(7) == 7
    assert processes.is_main
    assert processes.all_true(True)
    assert not processes.any_true(False)
    assert str(processes.mean_of({"none": (0.0, 0.0)})["none"]) == "nan"
    processes.barrier()


def test_a_launch_whose_processes_do_not_find_each_other_is_refused(monkeypatch: pytest.MonkeyPatch):
    from align.engine import distributed

    accelerator = start_accelerator()
    assert accelerator.num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AlignError, match="2 processes were launched, but they found 1"):
        distributed.start_accelerator()
