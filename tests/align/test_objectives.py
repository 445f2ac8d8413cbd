"""Ratio, clip, aggregation, KL: by hand, by gradient, and at the ends of the number range."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.objectives import aggregate, clip_statistics, clipped_surrogate, kl_estimate, log_ratio

LOG = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).log()  # ratios against log-probabilities of 0
OLD = torch.zeros(5)


class TestClippedSurrogate:
    def test_by_hand(self):
        """Range [0.8, 1.3]. rho A -> loss: 1.5 (+2): -2*1.3; 1.5 (-2): 2*1.5; .5 (+2): -2*.5; .5 (-2): 2*.8; 1.1
        (+1): -1.1."""
        advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
        loss = clipped_surrogate(LOG, OLD, advantages, 0.2, 0.3)
        assert_close(loss, torch.tensor([-2.6, 3.0, -1.0, 1.6, -1.1]))

    def test_dual_clip_bounds_bad_samples_only(self):
        """Ratio 5 with A = -2 costs 10; dual clip 3 makes it 6. The good sample keeps -2 * 1.2."""
        log_probs = torch.tensor([5.0, 5.0]).log()
        advantages = torch.tensor([-2.0, 2.0])
        assert_close(clipped_surrogate(log_probs, OLD[:2], advantages, 0.2, 0.2), torch.tensor([10.0, -2.4]))
        loss = clipped_surrogate(log_probs, OLD[:2], advantages, 0.2, 0.2, dual_clip=3.0)
        assert_close(loss, torch.tensor([6.0, -2.4]))

    def test_gradient_is_the_policy_gradient_where_nothing_clips(self):
        """On-policy d loss / d log pi = -A; past the bound on the side where A pushes it is 0, on the other -A rho."""
        log_probs = torch.cat([torch.zeros(2), LOG[:4]]).requires_grad_()
        advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
        clipped_surrogate(log_probs, torch.zeros(6), advantages, 0.2, 0.2).sum().backward()
        assert_close(log_probs.grad, torch.tensor([-2.0, 2.0, 0.0, 3.0, -1.0, 0.0]))

    def test_gradient_by_finite_differences(self):
        log_probs = torch.tensor([0.05, -0.1, 0.4, -0.6], dtype=torch.float64, requires_grad=True)
        advantages = torch.tensor([1.0, -0.5, -2.0, 3.0], dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda lp: clipped_surrogate(lp, torch.zeros(4).double(), advantages, 0.2, 0.2, 3.0), (log_probs,)
        )

    def test_no_gradient_reaches_the_old_policy_or_the_advantages(self):
        new, old, advantages = (torch.ones(2, requires_grad=True) for _ in range(3))
        clipped_surrogate(new, old, advantages, 0.2, 0.2).sum().backward()
        assert new.grad is not None
        assert old.grad is None
        assert advantages.grad is None

    def test_one_advantage_per_sample_spreads_over_its_units(self):
        log_probs = torch.zeros(2, 3)
        loss = clipped_surrogate(log_probs, log_probs, torch.tensor([1.0, -2.0]), 0.2, 0.2)
        assert_close(loss, torch.tensor([[-1.0] * 3, [2.0] * 3]))
        per_unit = clipped_surrogate(log_probs, log_probs, -loss, 0.2, 0.2)
        assert_close(per_unit, loss)

    def test_advantage_zero_is_silent_even_where_the_ratio_overflows(self):
        """exp(200) is infinite in float32, and 0 * inf is NaN: an unscored sample would poison the whole batch."""
        log_probs = torch.tensor([200.0, 0.1], requires_grad=True)
        loss = clipped_surrogate(log_probs, torch.zeros(2), torch.tensor([0.0, 1.0]), 0.2, 0.2)
        loss.sum().backward()
        assert loss[0] == 0
        assert log_probs.grad[0] == 0
        assert log_probs.grad[1] < 0

    def test_half_precision_inputs_are_raised_first(self):
        """1 + 2^-9 is no bfloat16 number: in bfloat16 the ratio of these two would be 1."""
        new = torch.tensor([2.0**-9], dtype=torch.bfloat16)
        loss = clipped_surrogate(new, torch.zeros(1, dtype=torch.bfloat16), torch.ones(1), 0.2, 0.2)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(-math.exp(2.0**-9), rel=1e-6)
        assert log_ratio(new.double(), new.double()).dtype == torch.float64

    @pytest.mark.parametrize(("options", "message"), [
        ({"clip_low": -0.2, "clip_high": 0.2}, "distances from 1.*found -0.2"),
        ({"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 0.9}, "dual_clip.*above 1.*found 0.9"),
    ])  # fmt: skip
    def test_refuses_impossible_ranges(self, options, message):
        with pytest.raises(ValueError, match=message):
            clipped_surrogate(OLD, OLD, OLD, **options)


class TestClipStatistics:
    def test_by_hand(self):
        """Range [0.8, 1.2], A = + - + - +: the first (1.5, +) and the fourth (.5, -) are clipped. |rho - 1|: .5 .5 .5
        .5 .1."""
        stats = clip_statistics(LOG, OLD, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]), 0.2, 0.2)
        assert {name: value.item() for name, value in stats.items()} == pytest.approx(
            {"ratio_deviation": 2.1 / 5, "clip_ratio": 0.4, "clip_ratio/low": 0.2, "clip_ratio/high": 0.2}
        )

    def test_counts_where_the_gradient_is_gone(self):
        """The share of clipped units is the share of units without gradient."""
        log_probs = torch.linspace(-1, 1, 40).requires_grad_()
        advantages = torch.tensor([1.0, -1.0]).repeat(20)
        clipped_surrogate(log_probs, torch.zeros(40), advantages, 0.2, 0.3).sum().backward()
        stats = clip_statistics(log_probs, torch.zeros(40), advantages, 0.2, 0.3)
        assert stats["clip_ratio"].item() == pytest.approx(float((log_probs.grad == 0).double().mean()))

    def test_masked_units_do_not_count(self):
        mask = torch.tensor([1, 0, 0, 0, 1])
        stats = clip_statistics(LOG, OLD, torch.ones(5), 0.2, 0.2, mask)
        assert stats["ratio_deviation"].item() == pytest.approx(0.3)
        assert clip_statistics(LOG, OLD, torch.ones(5), 0.2, 0.2, 0 * mask)["clip_ratio"] == 0

    def test_an_unchanged_policy_has_ratio_one_exactly(self):
        log_probs = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 30
        assert clip_statistics(log_probs, log_probs, torch.ones(50), 0.0, 0.0)["ratio_deviation"] == 0


LOSS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 8.0, 16.0], [5.0, 6.0, 7.0]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])  # a full, a short and an empty sequence


class TestAggregate:
    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("token_mean", 10 / 4),  # 1 + 2 + 3 + 4 over four tokens
            ("seq_mean_token_mean", (2 + 4) / 2),  # means 2 and 4 of two sequences
            ("seq_mean_token_sum", (6 + 4) / 2),
            ("seq_mean_token_sum_norm", (6 + 4) / 2 / 10),  # C = 10
            ("token_sum", 10.0),
        ],
    )
    def test_by_hand(self, mode, expected):
        assert aggregate(LOSS, MASK, mode, max_length=10).item() == pytest.approx(expected)

    @pytest.mark.parametrize(
        "mode", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm", "token_sum"]
    )
    @given(data=st.data())
    def test_any_sharding_is_one_process_with_all_the_data(self, mode, data):
        """Rows over two processes whose gradients are averaged, each in micro-batches that are summed."""
        rows = data.draw(st.integers(1, 8))
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
        loss = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
        mask = torch.rand(rows, 4, generator=generator) < 0.6
        counts = {"token_count": int(mask.sum()), "sequence_count": int(mask.any(1).sum()), "max_length": 7}
        owner = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
        of_process = []
        for rank in (0, 1):
            own = (owner == rank).nonzero().flatten()
            cut = data.draw(st.integers(0, len(own)))
            parts = [own[:cut], own[cut:]]
            of_process.append(sum(aggregate(loss[part], mask[part], mode, world=2, **counts) for part in parts))
        assert_close(sum(of_process) / 2, aggregate(loss, mask, mode, max_length=7))

    def test_a_part_with_nothing_trained_is_zero_with_a_gradient(self):
        """A micro-batch, or a process, of an update that has trained positions elsewhere."""
        loss = LOSS.clone().requires_grad_()
        for mode in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum"):
            result = aggregate(loss, torch.zeros(3, 3), mode, token_count=7, sequence_count=2)
            assert result.item() == 0
            result.backward()
        assert (loss.grad == 0).all()

    def test_nothing_trained_at_all_is_a_mistake(self):
        with pytest.raises(ValueError, match="no position that is trained"):
            aggregate(LOSS, torch.zeros(3, 3), "token_mean")

    def test_the_norm_is_never_guessed_from_the_padding(self):
        with pytest.raises(ValueError, match="needs `max_length`, a constant of the run"):
            aggregate(LOSS, MASK, "seq_mean_token_sum_norm")

    def test_an_unknown_mode(self):
        with pytest.raises(ValueError, match=r"no aggregation mode 'token_meen'. Did you mean `token_mean`.*token_sum"):
            aggregate(LOSS, MASK, "token_meen")


class TestKl:
    def test_by_hand(self):
        """d = ln 2: k1 = .6931, k2 = .2402, k3 = 1/2 - 1 + .6931 = .1931."""
        new, reference = torch.tensor([math.log(2.0)]), torch.zeros(1)
        expected = {"k1": math.log(2), "k2": math.log(2) ** 2 / 2, "k3": math.log(2) - 0.5}
        for kind, value in expected.items():
            assert kl_estimate(new, reference, kind).item() == pytest.approx(value, rel=1e-6)

    @pytest.mark.parametrize(("kind", "tolerance"), [("k1", 2e-3), ("k3", 2e-3), ("k2", 5e-3)])
    def test_means_are_the_divergence(self, kind, tolerance):
        """N(0, 1) against N(0.2, 1): KL = 0.02. k2 is biased, here by less than 0.005. 200,000 draws: error below
        0.001."""
        x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = kl_estimate(-x.square() / 2, -(x - 0.2).square() / 2, kind).mean().item()
        assert found == pytest.approx(0.02, abs=tolerance)

    @given(difference=st.floats(-(2.0**-10), 2.0**-10, width=32))
    def test_k3_keeps_its_digits_when_policies_are_close(self, difference):
        """exp(-d) - 1 + d is d^2 / 2 for small d; formed naively in float32 it is noise of 1e-7."""
        found = kl_estimate(torch.tensor([difference]), torch.zeros(1)).item()
        assert found >= 0 or abs(found) < 1e-10
        assert found == pytest.approx(difference**2 / 2, rel=1e-3, abs=2e-10)

    def test_equal_policies_have_none(self):
        same = torch.tensor([-3.0, -700.0])
        for kind in ("k1", "k2", "k3"):
            assert kl_estimate(same, same, kind).tolist() == [0.0, 0.0]

    def test_gradient_reaches_the_policy_only(self):
        new, reference = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
        kl_estimate(new, reference, "k2").sum().backward()
        assert new.grad.item() == -1.0
        assert reference.grad is None

    def test_an_unknown_kind(self):
        with pytest.raises(ValueError, match=r"no KL estimator 'k4'.*k1, k2, k3"):
            kl_estimate(OLD, OLD, "k4")
