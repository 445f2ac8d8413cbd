"""Log-probabilities from logits: shift, mask, sums and averages."""

import math

import pytest
import torch
from torch.testing import assert_close

from preference.logprobs import log_probs_of, pool_flat, pool_tokens, sequence_log_probs, token_log_probs

# Vocabulary of two, logits (0, log 3) everywhere: probabilities 1/4 and 3/4.
LOGITS = torch.tensor([0.0, math.log(3)], dtype=torch.float64).expand(1, 4, 2)
LABELS = torch.tensor([[1, 0, 1, 1]])
MASK = torch.tensor([[0, 1, 1, 0]])
QUARTER, THREE_QUARTERS = math.log(1 / 4), math.log(3 / 4)


def test_tokens_by_hand():
    """Places 1 and 2 are scored: tokens 0 and 1, each by the logits before it; place 3 is masked: exactly 0."""
    found = token_log_probs(LOGITS, LABELS, MASK)
    assert_close(found, torch.tensor([[QUARTER, THREE_QUARTERS, 0.0]], dtype=torch.float64))
    assert float(found[0, 2]) == 0.0


def test_sequences_by_hand():
    """Sum log(1/4) + log(3/4); average half of it."""
    assert float(sequence_log_probs(LOGITS, LABELS, MASK)) == pytest.approx(QUARTER + THREE_QUARTERS)
    average = sequence_log_probs(LOGITS, LABELS, MASK, average=True)
    assert float(average) == pytest.approx((QUARTER + THREE_QUARTERS) / 2)


def test_the_token_before_decides():
    """Logits that differ by place: the token at place 1 is scored by the logits at place 0."""
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    logits[0, 0, 1] = math.log(3)
    found = token_log_probs(logits, torch.tensor([[0, 1, 1]]), torch.ones(1, 3))
    assert_close(found, torch.tensor([[THREE_QUARTERS, math.log(1 / 2)]], dtype=torch.float64))


def test_labels_and_logits_under_the_mask_do_not_matter():
    """Labels of -100 and logits of inf or NaN at masked places: same values, gradient exactly 0 there."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (2, 5), generator=generator)
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 1, 1]])
    expected = token_log_probs(logits, labels, mask)
    broken = logits.clone()
    broken[:, :-1][mask[:, 1:] == 0] = float("nan")
    broken.requires_grad_()
    found = token_log_probs(broken, labels.masked_fill(mask == 0, -100), mask)
    assert_close(found, expected)
    found.sum().backward()
    assert bool((broken.grad[:, :-1][mask[:, 1:] == 0] == 0).all())
    # what raises one logit lowers the others: gradients of a place sum to 0
    assert_close(broken.grad.sum(dim=2), torch.zeros(2, 5, dtype=torch.float64))


def test_gradient_is_one_per_scored_token():
    """A sum passes 1 to every scored token, an average of three passes 1/3."""
    tokens = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1, 0]])
    pool_tokens(tokens, mask).sum().backward()
    assert tokens.grad.tolist() == [[1, 0, 1, 1, 0]]
    tokens.grad = None
    pool_tokens(tokens, mask, average=True).sum().backward()
    assert_close(tokens.grad, mask / 3, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_raised_before_the_softmax(dtype):
    logits = torch.randn(2, 300, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(600).reshape(2, 300) % 11
    mask = torch.ones(2, 300)
    found = sequence_log_probs(logits, labels, mask)
    assert found.dtype == torch.float32
    assert_close(found, sequence_log_probs(logits.double(), labels, mask).float(), rtol=1e-6, atol=1e-4)


def test_padding_changes_nothing():
    logits, labels = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(0, 7, (2, 5))
    mask = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
    wide = torch.cat([logits, torch.randn(2, 3, 7, dtype=torch.float64)], dim=1)
    labels_wide, mask_wide = torch.nn.functional.pad(labels, (0, 3), value=6), torch.nn.functional.pad(mask, (0, 3))
    assert_close(sequence_log_probs(wide, labels_wide, mask_wide), sequence_log_probs(logits, labels, mask))


def test_flat_tokens_pool_like_rows():
    """Sequence 0 has tokens 1 and 2, sequence 1 has 5: sums 3 and 5, averages 1.5 and 5."""
    tokens, ids = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 0, 1])
    assert pool_flat(tokens, ids, 2).tolist() == [3.0, 5.0]
    assert pool_flat(tokens, ids, 2, average=True).tolist() == [1.5, 5.0]


def test_rows_without_a_scored_token_are_refused():
    with pytest.raises(ValueError, match=r"sequences \[1\] have no scored token"):
        pool_tokens(torch.zeros(2, 3), torch.tensor([[1, 0, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match=r"sequences \[0\] have no scored token"):
        pool_flat(torch.zeros(2), torch.tensor([1, 1]), 2)
    # the token at place 0 has no predecessor: it alone is nothing
    with pytest.raises(ValueError, match="no scored token"):
        sequence_log_probs(LOGITS, LABELS, torch.tensor([[1, 0, 0, 0]]))


def test_log_probs_of_extreme_logits():
    """exp(1000) is no number; the log-probabilities are 0 and -2000."""
    found = log_probs_of(torch.tensor([[1000.0, -1000.0]]), torch.tensor([[0, 1]]))
    assert found.tolist() == [[0.0, -2000.0]]
