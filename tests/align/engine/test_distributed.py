"""Processes: one of them alone, and means over several. Collectives of two are in tests/runs/engine_collectives.py."""

from __future__ import annotations

import math

import pytest
import torch

from align.engine.distributed import Processes, merge_means, start_accelerator
from align.errors import AlignError


def test_a_single_process_gets_back_what_it_gives():
    processes = Processes(start_accelerator())
    rows = torch.tensor([2**53 + 1, 3])
    assert (processes.rank, processes.world, processes.is_main) == (0, 1, True)
    assert processes.gather_rows(rows) is rows
    assert processes.gather_objects("here") == ["here"]
    assert processes.from_main(3) == 3
    assert processes.all_true(True)
    assert not processes.any_true(False)


def test_means_by_hand():
    """4 units of mean 1.5 (sum 6) and 1 unit of mean 4: (6 + 4) / 5 = 2. A name may be absent; no units give NaN."""
    merged = merge_means([{"a": (6.0, 4.0), "b": (1.0, 2.0)}, {"a": (4.0, 1.0), "none": (0.0, 0.0)}])
    assert merged["a"] == 2.0
    assert merged["b"] == 0.5
    assert math.isnan(merged["none"])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "fsdp2_shard_grad_op.yaml"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "training.compile=true"),
    ],
)
def test_launch_settings_that_would_act_behind_the_engines_back_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
):
    """Before Accelerate starts anything: DeepSpeed need not even be installed."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(AlignError, match=message):
        start_accelerator()
