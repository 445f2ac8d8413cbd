"""Spread tensors, as far as one process can see them; the rest is in tests/runs/test_engine_sharded.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import nn

from align.engine import fsdp, sharding
from align.engine.distributed import start_accelerator
from align.errors import AlignError


@given(rows=integers(1, 12), parts=integers(1, 8))
def test_parts_are_torchs_chunks_and_the_missing_ones_are_empty(rows: int, parts: int):
    """FSDP2 cuts as `torch.chunk`, which leaves out empty chunks."""
    tensor = torch.arange(float(rows * 2)).view(rows, 2)
    expected = list(tensor.chunk(parts))
    found = [sharding._slice(tensor, 0, parts, part) for part in range(parts)]
    assert torch.equal(torch.cat(found), tensor)
    for part, piece in enumerate(found):
        assert torch.equal(piece, expected[part] if part < len(expected) else tensor[:0])


def test_plain_tensors_pass_through_untouched():
    """Runs without FSDP2 copy nothing and give bit-equal numbers."""
    weight = torch.ones(3, requires_grad=True)
    state = {"weight": weight, "steps": 3}
    assert not sharding.is_sharded(weight)
    assert sharding.whole(weight).data_ptr() == weight.data_ptr()
    assert sharding.local(weight).data_ptr() == weight.data_ptr()
    assert sharding.spread(weight, like=torch.zeros(3)) is weight
    assert sharding.spread_state(state, like=state) == state
    assert sharding.gathered(state, keep=True)["steps"] == 3
    assert sharding.gathered(state, keep=False) == {}
    assert sharding.number(torch.tensor(2.5)) == 2.5


def test_a_plain_weight_is_exchanged_by_its_memory():
    weight = nn.Parameter(torch.zeros(2))
    place, other = weight.data_ptr(), torch.ones(2)
    aside = sharding.exchange(weight, other)
    assert weight.data_ptr() == other.data_ptr()
    assert sharding.exchange(weight, aside).data_ptr() == other.data_ptr()
    assert weight.data_ptr() == place


def test_what_travels_is_half_precision_and_sums_are_float32():
    """Inputs stay with autocast: 999 in bfloat16, as FSDP2 would cast a time, is 1000."""
    policy = fsdp.mixed_precision("bf16", torch.device("cuda"))
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert not policy.cast_forward_inputs
    assert torch.tensor(999.0).bfloat16().item() == 1000.0
    assert fsdp.mixed_precision("no", torch.device("cuda")).param_dtype is None
    assert fsdp.mixed_precision("bf16", torch.device("cpu")).param_dtype is None


def test_fsdp_is_read_from_the_launchers_environment(monkeypatch: pytest.MonkeyPatch):
    assert not fsdp.asked_for()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert fsdp.asked_for()
    accelerator = start_accelerator()
    assert not fsdp.applies(accelerator)  # one process has nothing to spread over
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(AlignError, match="fsdp_version: 2"):
        start_accelerator()
