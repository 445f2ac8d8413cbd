"""A block is lent again when nobody has it, and never while somebody has."""

import pytest
import torch

from preference.logprobs import LinearHead, lending, log_probs_at
from preference.logprobs.lending import lend

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_lent_before(monkeypatch):
    monkeypatch.setattr(lending, "FEWEST", 1)
    monkeypatch.setattr(lending, "_kept", [])


def test_the_same_place_in_other_shapes_and_dtypes():
    place = lend(4, 6, torch.float64, CPU).data_ptr()
    for rows, columns, dtype in ((4, 6, torch.float64), (3, 2, torch.float32), (6, 8, torch.float32)):
        lent = lend(rows, columns, dtype, CPU)
        assert (lent.data_ptr(), lent.shape, lent.dtype) == (place, (rows, columns), dtype)
        assert lent.is_contiguous()
        del lent


@pytest.mark.parametrize(
    "view", [lambda lent: lent[1:], lambda lent: lent.detach(), lambda lent: lent.as_strided((2,), (1,))]
)
def test_not_while_somebody_has_a_view(view):
    held = view(lend(4, 6, torch.float32, CPU))
    held.fill_(1.0)
    lend(4, 6, torch.float32, CPU).fill_(2.0)
    assert bool((held == 1.0).all())


def test_more_than_there_is_makes_a_larger_one():
    lend(2, 2, torch.float32, CPU)
    place = lend(40, 60, torch.float32, CPU).data_ptr()
    assert lend(2, 2, torch.float32, CPU).data_ptr() == place


def test_small_ones_are_not_kept(monkeypatch):
    monkeypatch.setattr(lending, "FEWEST", 10**6)
    lend(4, 6, torch.float32, CPU)
    assert not lending._kept


def test_a_gradient_that_is_held_is_not_written_over():
    """Gradients of two micro-batches, of which the first is kept: it stands where its exponentials stood."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 8, generator=generator, requires_grad=True)
    batches = [torch.randn(64, 8, generator=generator) for _ in range(2)]
    ids = torch.randint(0, 50, (64, 1), generator=generator)

    def gradient(hidden):
        return torch.autograd.grad(log_probs_at(hidden, LinearHead(weight=weight), ids).sum(), weight)[0]

    first = gradient(batches[0])
    copy = first.clone()
    second = gradient(batches[1])
    assert torch.equal(first, copy)
    assert not torch.equal(first, second)
