"""ADPA: advantages from two teachers, and the loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.adpa import adpa_advantages, adpa_loss, expected_advantage
from preference.teacher import at_ids, entries, support_union, top_k


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(student_log_probs, advantages, mask=None, **options):
    """The loss without a supervised term."""
    mask = torch.ones(student_log_probs.shape[:2]) if mask is None else mask
    return adpa_loss(
        student_log_probs, advantages, mask, torch.zeros(1, 1), torch.ones(1, 1), sft_weight=0.0, **options
    )


def test_by_hand():
    """Teacher 1/2, 1/4; reference 1/4, 1/2: advantages log 2, -log 2. Student 1/2, 1/8: (1/2 - 1/8) log 2.
    gamma 2, one token, L_SFT = 3 with weight 0.5: 1.5 - 0.75 log 2.
    """
    teacher, reference, student = (torch.tensor([[p]]).double().log() for p in ([0.5, 0.25], [0.25, 0.5], [0.5, 0.125]))
    advantages = adpa_advantages(teacher, reference)
    assert_close(advantages, torch.tensor([[[math.log(2), -math.log(2)]]], dtype=torch.float64))
    chosen = torch.tensor([[-3.0]], dtype=torch.float64)
    out = adpa_loss(student, advantages, torch.ones(1, 1), chosen, torch.ones(1, 1), gamma=2.0, sft_weight=0.5)
    assert float(out.loss) == pytest.approx(1.5 - 0.75 * math.log(2), rel=1e-12)
    assert float(out.advantage) == pytest.approx(0.375 * math.log(2), rel=1e-12)
    assert float(out.sft) == 3.0


def test_clips_by_hand():
    """Log-ratios 2, 0.5, -1: signed as they are; released: 1, 0.5, 0; a range of one's own."""
    teacher, reference = torch.tensor([[2.0, 0.5, -1.0]]), torch.zeros(1, 3)
    assert adpa_advantages(teacher, reference).tolist() == [[2.0, 0.5, -1.0]]
    assert adpa_advantages(teacher, reference, clip="released").tolist() == [[1.0, 0.5, 0.0]]
    assert adpa_advantages(teacher, reference, clip=(-0.5, 1.5)).tolist() == [[1.5, 0.5, -0.5]]
    assert adpa_advantages(teacher, reference, advantage_beta=0.5).tolist() == [[1.0, 0.25, -0.5]]


def test_the_released_clip_keeps_the_gradient_of_what_is_left():
    """Clamped entries count 0: only the softmax lowers them. Entries of 1/4, 1/4, 1/2, A = (1, 0, 0): mean 1/4."""
    logits = torch.tensor([[[1.0, 1.0, 2.0]]], dtype=torch.float64).log().requires_grad_()
    advantages = adpa_advantages(
        torch.tensor([[[3.0, -2.0, 0.0]]]).double(), torch.zeros(1, 1, 3).double(), clip="released"
    )
    loss_of(logits.log_softmax(-1), advantages, gamma=1.0).loss.backward()
    expected = -torch.tensor([[[0.25 * 0.75, 0.25 * -0.25, 0.5 * -0.25]]], dtype=torch.float64)
    assert_close(logits.grad, expected)


def test_gradient_on_the_whole_vocabulary():
    """-(gamma/N) pi_j (A_j - sum_v pi_v A_v); its sum over j is 0; a constant added to A of a state changes nothing."""
    logits, advantages = random_logits(2, 3, 7).requires_grad_(), random_logits(2, 3, 7, seed=1)
    loss_of(logits.log_softmax(-1), advantages, gamma=1.5).loss.backward()
    probabilities = logits.detach().softmax(-1)
    mean = (probabilities * advantages).sum(-1, keepdim=True)
    assert_close(logits.grad, -(1.5 / 6) * probabilities * (advantages - mean))
    first = logits.grad.clone()
    logits.grad = None
    loss_of(logits.log_softmax(-1), advantages + random_logits(2, 3, 1, seed=2), gamma=1.5).loss.backward()
    assert_close(logits.grad, first)


def test_the_term_is_a_difference_of_divergences():
    """sum pi A = KL(pi || ref) - KL(pi || dpo), on the whole vocabulary and unclipped."""
    student, teacher, reference = (random_logits(2, 3, 9, seed=seed).log_softmax(-1) for seed in range(3))

    def kl(p, q):
        return (p.exp() * (p - q)).sum(-1)

    out = expected_advantage(student, adpa_advantages(teacher, reference, advantage_beta=0.3))
    assert_close(out, 0.3 * (kl(student, reference) - kl(student, teacher)))


@given(gamma=st.floats(0, 5), beta=st.floats(0.01, 3))
def test_linear_in_gamma_and_in_beta(gamma, beta):
    student, teacher, reference = (random_logits(1, 2, 5, seed=seed).log_softmax(-1) for seed in range(3))
    one = float(loss_of(student, adpa_advantages(teacher, reference), gamma=1.0).loss)
    advantages = adpa_advantages(teacher, reference, advantage_beta=beta)
    assert float(loss_of(student, advantages, gamma=gamma).loss) == pytest.approx(
        gamma * beta * one, rel=1e-9, abs=1e-12
    )


def test_equal_teachers_leave_the_supervised_term_exactly():
    student = random_logits(1, 2, 5).requires_grad_()
    teacher = random_logits(1, 2, 5, seed=1).log_softmax(-1)
    chosen = torch.tensor([[-1.0, -3.0]], dtype=torch.float64)
    advantages = adpa_advantages(teacher, teacher)
    out = adpa_loss(student.log_softmax(-1), advantages, torch.ones(1, 2), chosen, torch.ones(1, 2))
    out.loss.backward()
    assert float(out.loss.detach()) == 2.0
    assert float(student.grad.abs().max()) == 0.0


def test_a_sure_student_has_no_gradient():
    logits = torch.tensor([[[1000.0, 0.0, 0.0]]], dtype=torch.float64).requires_grad_()
    loss_of(logits.log_softmax(-1), random_logits(1, 1, 3)).loss.backward()
    assert float(logits.grad.abs().max()) == 0.0


def test_teachers_get_no_gradient():
    teacher, reference = (random_logits(1, 2, 5, seed=seed).requires_grad_() for seed in (1, 2))
    student = random_logits(1, 2, 5).requires_grad_()
    advantages = adpa_advantages(teacher.log_softmax(-1), reference.log_softmax(-1))
    loss_of(student.log_softmax(-1), advantages).loss.backward()
    assert teacher.grad is None
    assert reference.grad is None


@pytest.mark.parametrize("tail", ["ignore", "bucket", "renormalise"])
def test_supports_are_slow_sums(tail):
    """Over the teacher's top 2 of 6: alone, with the rest as a third entry, or given that one of the two comes."""
    student, teacher, reference = (random_logits(6, seed=seed).log_softmax(-1) for seed in range(3))
    record = top_k(teacher, 2)
    student_entries, teacher_entries, reference_entries = (
        entries(at_ids(log_probs, record.ids), tail) for log_probs in (student, teacher, reference)
    )
    found = expected_advantage(student_entries, adpa_advantages(teacher_entries, reference_entries))
    p, q, r = (log_probs.exp().tolist() for log_probs in (student, teacher, reference))
    inside = record.ids.tolist()
    rest = [sum(values[v] for v in range(6) if v not in inside) for values in (p, q, r)]
    mass = [1.0 - part if tail == "renormalise" else 1.0 for part in rest]
    expected = sum(p[v] / mass[0] * math.log(q[v] / mass[1] * mass[2] / r[v]) for v in inside)
    if tail == "bucket":
        expected += rest[0] * math.log(rest[1] / rest[2])
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_union_of_supports_counts_an_id_once():
    student, teacher, reference = (random_logits(6, seed=seed).log_softmax(-1) for seed in range(3))
    ids, new = support_union(top_k(teacher, 4).ids, top_k(reference, 4).ids)
    values = [at_ids(log_probs, ids).log_probs for log_probs in (student, teacher, reference)]
    found = expected_advantage(values[0], adpa_advantages(values[1], values[2]) * new)
    expected = sum(float(student[v].exp() * (teacher[v] - reference[v])) for v in set(ids.tolist()))
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_masked_tokens_and_counts():
    """The second token is padding: 1 of 1 token; as part of an update of 4 tokens it is a quarter."""
    student, advantages = random_logits(1, 2, 5).log_softmax(-1), random_logits(1, 2, 5, seed=1)
    mask = torch.tensor([[1, 0]])
    alone = loss_of(student[:, :1], advantages[:, :1]).loss
    assert_close(loss_of(student, advantages, mask).loss, alone)
    assert_close(loss_of(student, advantages, mask, token_count=4).loss, alone / 4)


def test_training_ends_at_the_largest_advantage():
    """Without a supervised term the policy becomes a point on argmax A: why the support is restricted."""
    advantages = torch.tensor([[[0.1, -2.0, 0.4, 0.3]]], dtype=torch.float64)
    logits = torch.zeros(1, 1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        loss_of(logits.log_softmax(-1), advantages).loss.backward()
        optimizer.step()
    assert float(logits.detach().softmax(-1)[0, 0, 2]) > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_are_finite(dtype):
    """Log-probabilities of -60000, and entries that neither teacher has."""
    teacher = torch.tensor([[[0.0, -60000.0, -math.inf]]], dtype=dtype)
    student = torch.tensor([[[-60000.0, 0.0, -1.0]]], dtype=dtype).requires_grad_()
    out = loss_of(student, adpa_advantages(teacher, teacher))
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert float(out.loss.detach()) == 0.0
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize(
    ("clip", "message"), [("relaesed", "Did you mean `released`"), ((1.0, 0.0), "from low to high")]
)
def test_what_is_refused(clip, message):
    with pytest.raises(ValueError, match=message):
        adpa_advantages(torch.zeros(1, 2), torch.zeros(1, 2), clip=clip)
