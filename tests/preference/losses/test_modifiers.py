"""LD-DPO's sums, WPO's weights, the likelihood term."""

import math

import pytest
import torch
from torch.testing import assert_close

from preference.losses import ld_log_probs, negative_log_likelihood, wpo_weights


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


CHOSEN, CHOSEN_MASK = f64([-1.0, -2.0, -4.0, 9.0]), torch.tensor([[1, 1, 1, 0]])
REJECTED, REJECTED_MASK = f64([9.0, -8.0, -16.0]), torch.tensor([[0, 1, 1]])


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, -7.0), (0.5, -5.0), (0.0, -3.0)])
def test_ld_by_hand(alpha, expected):
    """Three chosen tokens, two rejected: the third, -4, counts alpha; the rejected answer is whole, -24."""
    chosen, rejected = ld_log_probs(CHOSEN, REJECTED, CHOSEN_MASK, REJECTED_MASK, alpha=alpha)
    assert (float(chosen), float(rejected)) == (expected, -24.0)


def test_ld_gradient_is_the_weight_of_each_token():
    chosen = CHOSEN.clone().requires_grad_()
    ld_log_probs(chosen, REJECTED, CHOSEN_MASK, REJECTED_MASK, alpha=0.25)[0].sum().backward()
    assert chosen.grad.tolist() == [[1.0, 1.0, 0.25, 0.0]]


def test_ld_refuses_a_weight_beyond_one():
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ld_log_probs(CHOSEN, REJECTED, CHOSEN_MASK, REJECTED_MASK, alpha=2.0)


def test_wpo_by_hand():
    """Chosen: mean of (-1 + 0.5, -2 + 1, -4 + 1.5) = -4/3; rejected: mean of (-8 + 6, -16 + 14) = -2: exp(-10/3)."""
    squares = f64([-0.5, -1.0, -1.5, 3.0]), f64([3.0, -6.0, -14.0])
    weight = wpo_weights(CHOSEN.requires_grad_(), REJECTED, *squares, CHOSEN_MASK, REJECTED_MASK)
    assert float(weight) == pytest.approx(math.exp(-10 / 3), rel=1e-12)
    assert not weight.requires_grad


def test_wpo_is_capped():
    """The mode is likelier than the mean probability: log pi - log sum pi^2 = 2 here, twice, e^4 without the cap."""
    chosen, squares, mask = f64([-1.0]), f64([-3.0]), torch.ones(1, 1)
    arguments = (chosen, chosen, squares, squares, mask, mask)
    assert float(wpo_weights(*arguments)) == 1.0
    assert float(wpo_weights(*arguments, cap=None)) == pytest.approx(math.exp(4), rel=1e-12)


def test_negative_log_likelihood_by_hand():
    """Tokens -1, -2, -4 and -8: 15/4 a token; answers 7/3 and 8: (7/3 + 8)/2. A whole update of 8 tokens: 15/8."""
    log_probs = f64([-1.0, -2.0, -4.0], [-8.0, 5.0, 5.0])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert float(negative_log_likelihood(log_probs, mask)) == 15 / 4
    by_answer = negative_log_likelihood(log_probs, mask, mode="seq_mean_token_mean")
    assert float(by_answer) == pytest.approx((7 / 3 + 8) / 2)
    assert float(negative_log_likelihood(log_probs, mask, token_count=8)) == 15 / 8


def test_micro_batches_add_up():
    log_probs, mask = -torch.rand(4, 6, dtype=torch.float64), torch.arange(6) < torch.tensor([[1], [6], [2], [4]])
    whole = negative_log_likelihood(log_probs, mask)
    parts = [negative_log_likelihood(log_probs[i : i + 2], mask[i : i + 2], token_count=13) for i in (0, 2)]
    assert_close(sum(parts), whole)
