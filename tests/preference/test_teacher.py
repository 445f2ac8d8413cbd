"""Teacher records: what is kept, what the rest is, and the same numbers in chunks."""

import math

import pytest
import torch
from torch.testing import assert_close

from preference.logprobs import LinearHead, ModuleHead
from preference.teacher import TopK, at_ids, entries, student_at, support_union, teacher_top_k, top_k

LOGITS = torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=torch.float64).log()
"""Probabilities 1/15, 2/15, 4/15, 8/15."""


def log(*values):
    return torch.tensor([values], dtype=torch.float64).log()


def test_by_hand():
    """The two likeliest of four: 8/15 and 4/15; the rest 3/15."""
    record = top_k(LOGITS, 2)
    assert record.ids.tolist() == [[3, 2]]
    assert_close(record.log_probs, log(8 / 15, 4 / 15))
    assert_close(record.log_rest, log(3 / 15)[0])


def test_entries_by_name():
    """bucket: 8, 4 and 3 of 15; renormalise: 8 and 4 of 12; ignore: 8 and 4 of 15, which is no distribution."""
    record = top_k(LOGITS, 2)
    assert_close(entries(record, "bucket"), log(8 / 15, 4 / 15, 3 / 15))
    assert_close(entries(record, "renormalise"), log(8 / 12, 4 / 12))
    assert_close(entries(record, "ignore"), log(8 / 15, 4 / 15))
    with pytest.raises(ValueError, match="Did you mean `bucket`"):
        entries(record, "buckets")


def test_other_model_at_the_same_ids():
    record = at_ids(LOGITS, torch.tensor([[0, 3]]))
    assert_close(record.log_probs, log(1 / 15, 8 / 15))
    assert_close(record.log_rest, log(6 / 15)[0])


def test_the_whole_vocabulary_leaves_no_rest():
    logits = LOGITS.clone().requires_grad_()
    record = top_k(logits, 9)
    assert record.ids.shape == (1, 4)
    assert record.log_rest.tolist() == [-math.inf]
    record.log_probs.exp().square().sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_a_rest_far_below_rounding_keeps_its_size():
    """One entry holds all but e^-40: 1 - sum is 0 in float32, the rest is -40 + log 3."""
    record = top_k(torch.tensor([[0.0, -40.0, -40.0, -40.0]]), 1)
    assert float(record.log_rest) == pytest.approx(-40 + math.log(3), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_float32_records(dtype):
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    record = top_k(logits, 3)
    assert record.log_probs.dtype == record.log_rest.dtype == torch.float32
    assert_close(entries(record, "bucket").exp().sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("memory", [1, 10**9])
def test_in_chunks_from_hidden_states(memory):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(19, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    head = LinearHead(weight=weight)
    record = teacher_top_k(hidden, head, 5, memory=memory)
    expected = top_k(hidden @ weight.T, 5)
    assert torch.equal(record.ids, expected.ids)
    assert not record.log_probs.requires_grad
    for kind in (head, ModuleHead(module=lambda states: states @ weight.T)):
        student = student_at(hidden, kind, record.ids, memory=memory)
        assert_close(entries(student, "bucket"), entries(expected, "bucket"))
        for one, other in zip(
            torch.autograd.grad(entries(student, "bucket").exp().square().sum(), [hidden, weight]),
            torch.autograd.grad(entries(top_k(hidden @ weight.T, 5), "bucket").exp().square().sum(), [hidden, weight]),
        ):
            assert_close(one, other)


def test_gradient_of_the_rest():
    """d log rest / dz = p(others) / rest - p: raising a kept logit lowers the rest by its probability."""
    logits = LOGITS.clone().requires_grad_()
    at_ids(logits, torch.tensor([[3, 2]])).log_rest.sum().backward()
    expected = torch.tensor([[1 / 3 - 1 / 15, 2 / 3 - 2 / 15, -4 / 15, -8 / 15]], dtype=torch.float64)
    assert_close(logits.grad, expected)


def test_union_of_supports_by_hand():
    """Ids 5, 7 and 7, 9: the second 7 is there already."""
    ids, new = support_union(torch.tensor([[5, 7]]), torch.tensor([[7, 9]]))
    assert ids.tolist() == [[5, 7, 7, 9]]
    assert new.tolist() == [[True, True, False, True]]


def test_no_entries_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        top_k(LOGITS, 0)


def test_tables_of_tokens_keep_their_shape():
    record = top_k(LOGITS.expand(3, 2, 4), 2)
    assert isinstance(record, TopK)
    assert (record.ids.shape, record.log_rest.shape) == ((3, 2, 2), (3, 2))
