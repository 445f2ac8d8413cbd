"""Ranking measures: by hand, and the theorem that ties them to the DPO loss."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from preference.losses import dpo
from preference.ranking import (
    alignment_gap,
    both_falling,
    difficulty,
    idealised_ranking_accuracy,
    ideally_ranked,
    loss_for_correct_ranking,
    margins,
    order_accuracy,
    ranked_correctly,
    ranking_accuracy,
    reward_accuracy,
    tie_accuracy,
)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_ranking_accuracy_by_hand():
    """-1 >= -2 yes, -3 >= -3 yes, -5 >= -4 no: 2/3. Reward accuracy is strict: 1/3."""
    chosen, rejected = f64(-1, -3, -5), f64(-2, -3, -4)
    assert ranked_correctly(chosen, rejected).tolist() == [True, True, False]
    assert float(ranking_accuracy(chosen, rejected)) == pytest.approx(2 / 3)
    assert float(reward_accuracy(chosen, rejected)) == pytest.approx(1 / 3)


def test_orders_by_hand():
    """Best to worst: -1, -2, -3 in order; -1, -3, -2 is not, though its best is right."""
    assert float(order_accuracy(f64([-1, -2, -3], [-1, -3, -2]))) == 0.5


def test_ties_by_hand():
    """e^-1 = 0.3679 and e^-1.01 = 0.3642 differ by 0.0037; e^-1 and e^-1.1 = 0.3329 by 0.035."""
    assert float(tie_accuracy(f64(-1, -1), f64(-1.01, -1.1))) == 0.5


def test_difficulty_by_hand():
    """Reference -20 for chosen, -15 for rejected: c = 5; beta 0.1: log(1 + e^-0.5) = 0.474. For c = 30: 0.0486."""
    assert float(difficulty(f64(-20), f64(-15))) == 5.0
    assert float(loss_for_correct_ranking(f64(-20), f64(-15), beta=0.1)) == pytest.approx(0.474077, abs=1e-6)
    assert float(loss_for_correct_ranking(f64(-45), f64(-15), beta=0.1)) == pytest.approx(0.048587, abs=1e-6)


def test_margins_by_hand_and_swapped():
    """(-10 + 21) - (-12 + 20) = 3."""
    values = f64(-10), f64(-21), f64(-12), f64(-20)
    assert float(margins(*values)) == 3.0
    assert float(margins(values[1], values[0], values[3], values[2])) == -3.0


@given(
    chosen=st.floats(-50, 0),
    rejected=st.floats(-50, 0),
    ref_chosen=st.floats(-50, 0),
    ref_rejected=st.floats(-50, 0),
    beta=st.floats(0.01, 2),
)
def test_a_pair_is_ranked_correctly_iff_its_loss_is_low_enough(chosen, rejected, ref_chosen, ref_rejected, beta):
    """Theorem 4.1; pairs within rounding of equality are not asked."""
    assume(abs(chosen - rejected) > 1e-6)
    values = [f64(value) for value in (chosen, rejected, ref_chosen, ref_rejected)]
    loss = float(dpo(*values, beta=beta).losses)
    bound = float(loss_for_correct_ranking(values[2], values[3], beta=beta))
    assume(not math.isclose(loss, bound, rel_tol=1e-12))
    assert (loss <= bound) == (chosen >= rejected)


def test_idealised_by_hand():
    """Annotators 3 to 1: log-odds log 3 = 1.0986. beta 1 lifts the pair by 1.0986, beta 0.1 by 10.986.

    Reference margins -1, -5, -20: at beta 1 the first is right (1/3), at 0.1 the first two (2/3), at 0.01 all.
    """
    reference = f64(-1, -5, -20), f64(0, 0, 0)
    for beta, expected in ((1.0, [True, False, False]), (0.1, [True, True, False]), (0.01, [True, True, True])):
        assert ideally_ranked(*reference, beta=beta, annotator_rate=0.75).tolist() == expected
    shares = idealised_ranking_accuracy(*reference, betas=(1.0, 0.1, 0.01), annotator_rate=0.75)
    assert [float(share) for share in shares] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_unanimous_annotators_are_taken_for_999_of_1000():
    """log(0.999/0.001) = 6.9068 nats at beta 1: margins of -6.9 are lifted, of -6.91 not; a rate of 0 is its mirror."""
    assert ideally_ranked(f64(-6.9, -6.91), f64(0, 0), beta=1.0).tolist() == [True, False]
    assert ideally_ranked(f64(6.9, 6.91), f64(0, 0), beta=1.0, annotator_rate=0.0).tolist() == [False, True]
    rates = f64(1.0, 0.0)
    assert ideally_ranked(f64(0, 0), f64(0, 0), beta=1.0, annotator_rate=rates).tolist() == [True, False]


def test_the_optimum_of_dpo_is_ranked_as_predicted():
    """Gradient descent on a pair judged 3 to 1 ends at a log-odds of log 3 / beta above the reference."""
    ref_chosen, ref_rejected, beta = f64(-4), f64(-1), 0.5
    policy = f64(-4.0).requires_grad_()
    optimizer = torch.optim.Adam([policy], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        one = dpo(policy, ref_rejected, ref_chosen, ref_rejected, beta=beta).losses
        other = dpo(ref_rejected, policy, ref_rejected, ref_chosen, beta=beta).losses
        (0.75 * one + 0.25 * other).sum().backward()
        optimizer.step()
    assert float(policy.detach()) == pytest.approx(-4 + math.log(3) / beta, abs=1e-3)
    predicted = ideally_ranked(ref_chosen, ref_rejected, beta=beta, annotator_rate=0.75)
    assert bool(predicted) == bool(ranked_correctly(policy.detach(), ref_rejected)) is False


def test_gap_by_hand():
    """Ideal 1/3, 2/3, 1 (median 2/3) as above; the policy ranks none: gap 2/3."""
    gap = alignment_gap(
        f64(-1, -1, -1), f64(0, 0, 0), f64(-1, -5, -20), f64(0, 0, 0), betas=(1.0, 0.1, 0.01), annotator_rate=0.75
    )
    assert float(gap) == pytest.approx(2 / 3)


def test_both_falling_by_hand():
    """Changes of chosen -1, -1, 3; of rejected -4, 1, -9: means 1/3 and -4. Only pair 0 hides a fall in its margin."""
    ref = f64(-10, -10, -10)
    out = both_falling(ref + f64(-1, -1, 3), ref + f64(-4, 1, -9), ref, ref)
    assert (float(out.chosen), float(out.rejected)) == pytest.approx((1 / 3, -4.0))
    assert float(out.share) == pytest.approx(1 / 3)
    assert not bool(out.warning)
    assert bool(both_falling(ref - 1, ref - 2, ref, ref).warning)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_first(dtype):
    """256 + 1 is no bfloat16 number: the difference of two of them is exact in float32."""
    values = [torch.tensor([value], dtype=dtype) for value in (-255.0, -256.0, -256.0, -255.0)]
    assert margins(*values).dtype == torch.float32
    assert float(margins(*values)) == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: loss_for_correct_ranking(x, x, beta=0.0), "`beta` must be above 0"),
        (lambda x: ideally_ranked(x, x, beta=1.0, annotator_rate=1.5), r"share in \[0, 1\]"),
        (lambda x: idealised_ranking_accuracy(x, x, betas=()), "`betas` is empty"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(f64(-1))
