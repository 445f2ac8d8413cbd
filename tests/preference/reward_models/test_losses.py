"""Losses of reward models: by hand, missing labels (I23), micro and macro against a loop, cuts that change nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preference.reward_models.losses import bradley_terry, label_counts, label_weights, masked_mse

NAN = math.nan


class TestBradleyTerry:
    def test_by_hand(self):
        """-log sigma(log 3) = -log(3 / 4); equal rewards give log 2."""
        found = bradley_terry(torch.tensor([math.log(3.0), 5.0]), torch.tensor([0.0, 5.0]))
        assert found.tolist() == pytest.approx([math.log(4 / 3), math.log(2)], rel=1e-6)

    def test_margin_smoothing_and_centre_by_hand(self):
        """x = 2 log 3 - 0 - log 3 = log 3: 0.9 log(4/3) + 0.1 log 4, and 0.5 (2 log 3)^2 beside it."""
        chosen, rejected = torch.tensor([2 * math.log(3.0)]), torch.tensor([0.0])
        found = bradley_terry(
            chosen, rejected, margin=torch.tensor([math.log(3.0)]), label_smoothing=0.1, centre_weight=0.5
        )
        expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4) + 0.5 * (2 * math.log(3)) ** 2
        assert found.item() == pytest.approx(expected, rel=1e-6)

    def test_only_the_difference_counts_but_for_the_centre(self):
        chosen, rejected = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
        assert torch.allclose(bradley_terry(chosen + 7, rejected + 7), bradley_terry(chosen, rejected), atol=1e-6)
        assert (bradley_terry(chosen + 7, rejected + 7, centre_weight=0.1) > bradley_terry(chosen, rejected)).all()

    def test_gradient_is_the_probability_of_being_wrong(self):
        """d/dr_w = -sigma(r_l - r_w), d/dr_l the opposite."""
        chosen, rejected = torch.tensor([0.3], requires_grad=True), torch.tensor([1.1], requires_grad=True)
        bradley_terry(chosen, rejected).sum().backward()
        assert chosen.grad is not None
        assert rejected.grad is not None
        assert chosen.grad.item() == pytest.approx(-torch.sigmoid(torch.tensor(0.8)).item())
        assert rejected.grad.item() == -chosen.grad.item()


class TestMaskedMse:
    def test_by_hand(self):
        """Errors 1, 2 of the first attribute and 3 of the second: micro (1 + 4 + 9) / 3, macro (5 / 2 + 9) / 2."""
        predictions = torch.tensor([[1.0, 3.0], [2.0, 8.0]])
        labels = torch.tensor([[0.0, 0.0], [0.0, NAN]])
        assert masked_mse(predictions, labels).item() == pytest.approx(14 / 3)
        assert masked_mse(predictions, labels, averaging="macro").item() == pytest.approx((5 / 2 + 9) / 2)

    @pytest.mark.parametrize("averaging", ["micro", "macro"])
    @pytest.mark.parametrize("content", [NAN, -NAN])
    def test_the_gradient_at_a_missing_label_is_exactly_zero(self, averaging, content):
        """And finite everywhere: a mask that multiplies would leave NaN."""
        predictions = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        labels = torch.zeros(4, 3)
        labels[1, :] = labels[2, 1] = content
        masked_mse(predictions, labels, averaging=averaging).backward()
        assert predictions.grad is not None
        assert predictions.grad[labels.isnan()].tolist() == [0.0] * 4
        assert predictions.grad[~labels.isnan()].abs().min() > 0
        assert predictions.grad.isfinite().all()

    @pytest.mark.parametrize("averaging", ["micro", "macro"])
    def test_an_attribute_or_a_batch_without_labels(self, averaging):
        predictions = torch.ones(2, 2, requires_grad=True)
        labels = torch.tensor([[0.0, NAN], [0.0, NAN]])
        assert masked_mse(predictions, labels, averaging=averaging).item() == 1.0
        nothing = masked_mse(predictions, torch.full((2, 2), NAN), averaging=averaging)
        nothing.backward()
        assert nothing.item() == 0.0
        assert predictions.grad is not None
        assert predictions.grad.abs().sum() == 0

    @given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from(["micro", "macro"]))
    def test_against_a_slow_loop(self, rows, columns, seed, averaging):
        draw = torch.Generator().manual_seed(seed)
        predictions = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
        labels = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
        labels[torch.rand(rows, columns, generator=draw) < 0.4] = NAN
        expected = slow(predictions.tolist(), labels.tolist(), averaging)
        assert masked_mse(predictions, labels, averaging=averaging).item() == pytest.approx(expected, rel=1e-12)

    @given(st.integers(2, 9), st.integers(0, 10**6), st.sampled_from(["micro", "macro"]))
    def test_parts_with_global_counts_sum_to_the_whole(self, rows, seed, averaging):
        """Wherever the missing labels fall; means of parts would not."""
        draw = torch.Generator().manual_seed(seed)
        predictions = torch.randn(rows, 3, generator=draw, dtype=torch.float64)
        labels = torch.randn(rows, 3, generator=draw, dtype=torch.float64)
        labels[torch.rand(rows, 3, generator=draw) < 0.5] = NAN
        cut = int(torch.randint(1, rows, (1,), generator=draw))
        counts = label_counts(labels)
        parts = [
            masked_mse(predictions[part], labels[part], counts=counts, averaging=averaging).item()
            for part in (slice(0, cut), slice(cut, rows))
        ]
        assert sum(parts) == pytest.approx(masked_mse(predictions, labels, averaging=averaging).item(), rel=1e-12)


def slow(predictions, labels, averaging):
    errors = {}
    for row, targets in zip(predictions, labels, strict=True):
        for column, (p, y) in enumerate(zip(row, targets, strict=True)):
            if not math.isnan(y):
                errors.setdefault(column, []).append((p - y) ** 2)
    if averaging == "micro":
        pooled = [error for column in errors.values() for error in column]
        return sum(pooled) / max(1, len(pooled))
    means = [sum(column) / len(column) for column in errors.values()]
    return sum(means) / max(1, len(means))


def test_weights_by_hand():
    """Counts 3, 0, 1: micro 1/4 each; macro 1 / (2 * 3), 0, 1 / (2 * 1)."""
    counts = torch.tensor([3, 0, 1])
    assert label_weights(counts).tolist() == [0.25] * 3
    assert label_weights(counts, "macro").tolist() == pytest.approx([1 / 6, 0.0, 0.5])
