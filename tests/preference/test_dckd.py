"""DCKD: divergences from records, and the loss."""

import math

import pytest
import torch
from torch.testing import assert_close

from preference.dckd import Distilled, dckd_loss, record_kl
from preference.teacher import TopK, at_ids, top_k


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full_kl(p, q):
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def logs(*values):
    return torch.tensor([[values]], dtype=torch.float64).log()


def test_kl_by_hand():
    """Teacher 1/2, 1/4 and a rest of 1/4; student 1/4, 1/4 and 1/2.

    bucket: (1/2) log 2 + 0 + (1/4) log(1/2) = (1/4) log 2.
    renormalise: 2/3, 1/3 against 1/2, 1/2: (2/3) log(4/3) + (1/3) log(2/3).
    """
    ids = torch.tensor([[[4, 7]]])
    teacher = TopK(ids=ids, log_probs=logs(0.5, 0.25), log_rest=logs(0.25)[..., 0])
    student = TopK(ids=ids, log_probs=logs(0.25, 0.25), log_rest=logs(0.5)[..., 0])
    assert float(record_kl(teacher, student)) == pytest.approx(0.25 * math.log(2), rel=1e-12)
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert float(record_kl(teacher, student, tail="renormalise")) == pytest.approx(expected, rel=1e-12)


def test_bucketed_kl_grows_with_k_up_to_the_full_one():
    teacher, student = random_logits(6, 20), random_logits(6, 20, seed=1)
    values = []
    for k in range(1, 21):
        record = top_k(teacher, k)
        values.append(record_kl(record, at_ids(student, record.ids)))
    steps = torch.stack(values).diff(dim=0)
    assert float(steps.min()) > -1e-12
    assert float(values[0].min()) >= 0
    assert_close(values[-1], full_kl(teacher, student))


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_equal_models_have_no_divergence_and_no_gradient(tail):
    logits = random_logits(2, 3, 9).requires_grad_()
    record = top_k(logits.detach(), 4)
    kl = record_kl(record, at_ids(logits, record.ids), tail=tail)
    kl.sum().backward()
    assert float(kl.detach().abs().max()) < 1e-14
    assert float(logits.grad.abs().max()) < 1e-14


def test_gradient_on_the_whole_vocabulary_is_the_difference():
    """d KL / dz_j = pi_theta(j) - pi_dpo(j), divided by N tokens."""
    teacher, student = random_logits(1, 5, 9), random_logits(1, 5, 9, seed=2).requires_grad_()
    record = top_k(teacher, 9)
    side = Distilled(teacher=record, student=at_ids(student, record.ids), mask=torch.ones(1, 5))
    out = dckd_loss(side, side, torch.zeros(1, 5), alpha=1.0, rejected_weight=0.0, sft_weight=0.0)
    out.loss.backward()
    assert_close(student.grad, (student.detach().softmax(-1) - teacher.softmax(-1)) / 5)


def test_loss_is_its_slow_loop():
    """Against sums token by token over whole vocabularies; padding holds other numbers on purpose."""
    masks = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([[1, 0, 0], [1, 1, 0]])
    sides, expected = [], 0.0
    for number, mask in enumerate(masks):
        teacher, student = random_logits(2, 3, 7, seed=number), random_logits(2, 3, 7, seed=10 + number)
        record = top_k(teacher, 7)
        sides.append(Distilled(teacher=record, student=at_ids(student, record.ids), mask=mask))
        total = sum(float(full_kl(teacher[i, t], student[i, t])) for i in range(2) for t in range(3) if mask[i, t])
        expected += 0.2 * (3.0 if number else 2.0) * total / int(mask.sum())
    log_probs = -random_logits(2, 3, seed=5).abs()
    expected += 0.5 * -float(log_probs[masks[0] != 0].mean())
    out = dckd_loss(*sides, log_probs, sft_weight=0.5, chosen_weight=2.0, rejected_weight=3.0)
    assert float(out.loss) == pytest.approx(expected, rel=1e-12)


def test_no_weights_leave_the_supervised_term():
    record = top_k(random_logits(2, 3, 7), 2)
    side = Distilled(teacher=record, student=record, mask=torch.ones(2, 3))
    log_probs = random_logits(2, 3).requires_grad_()
    out = dckd_loss(side, side, log_probs, alpha=0.0)
    assert float(out.loss.detach()) == float(out.sft) == pytest.approx(-float(log_probs.detach().mean()))


def test_micro_batches_add_up():
    """Two halves with the counts of the whole give the whole."""
    teacher, student, log_probs = random_logits(4, 3, 7), random_logits(4, 3, 7, seed=1), random_logits(4, 3, seed=2)
    mask = torch.arange(3) < torch.tensor([[1], [3], [2], [1]])
    record = top_k(teacher, 3)
    scored = at_ids(student, record.ids)

    def part(rows, count):
        def take(r):
            return TopK(ids=r.ids[rows], log_probs=r.log_probs[rows], log_rest=r.log_rest[rows])

        side = Distilled(teacher=take(record), student=take(scored), mask=mask[rows], token_count=count)
        return dckd_loss(side, side, log_probs[rows]).loss

    assert_close(part(slice(0, 2), 7) + part(slice(2, 4), 7), part(slice(0, 4), None))


def test_training_ends_at_the_teacher():
    teacher, student = random_logits(1, 2, 6), random_logits(1, 2, 6, seed=3).requires_grad_()
    record, optimizer = top_k(teacher, 6), torch.optim.Adam([student], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        side = Distilled(teacher=record, student=at_ids(student, record.ids), mask=torch.ones(1, 2))
        dckd_loss(side, side, torch.zeros(1, 2), alpha=1.0, sft_weight=0.0).loss.backward()
        optimizer.step()
    assert_close(student.detach().softmax(-1), teacher.softmax(-1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_are_finite(dtype):
    """A student that gives the teacher's only token e^-60000 loses 60,000 nats, not infinity."""
    teacher = torch.tensor([[[30000.0, -30000.0, 0.0]]], dtype=dtype)
    student = (-teacher).requires_grad_()
    record = top_k(teacher, 1)
    kl = record_kl(record, at_ids(student, record.ids))
    kl.sum().backward()
    assert float(kl.detach()) == pytest.approx(60000, rel=1e-2)  # 30000 is 29952 in bfloat16
    assert bool(student.grad.isfinite().all())


def test_what_is_refused():
    record, other = top_k(random_logits(1, 2, 7), 2), top_k(random_logits(1, 2, 7, seed=4), 2)
    with pytest.raises(ValueError, match="different ids"):
        record_kl(record, other)
    with pytest.raises(ValueError, match="do not sum to 1"):
        record_kl(record, record, tail="ignore")
