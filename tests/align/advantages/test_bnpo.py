"""BNPO: the published numbers, its limits, and the cases in which the released code breaks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.bnpo import BetaShape, fitted_shape, group_weights


def run(rewards, ids, **options):
    return estimate("bnpo", AdvantageInputs(rewards=torch.tensor(rewards), group_ids=torch.tensor(ids)), **options)


def batch_of(*successes, size=8):
    """Groups of `size` with so many successes each."""
    rewards = [float(place < count) for count in successes for place in range(size)]
    return rewards, [number for number in range(len(successes)) for _ in range(size)]


class TestShape:
    def test_symmetric_rates(self):
        """Rates 1/8, 3/8, 5/8, 7/8: v = .1041667, c = .25/.1041667 - 1 = 1.4, alpha = beta = 1 + .7/3 = 1.23333."""
        rates = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
        shape = fitted_shape(rates)
        assert (shape.alpha, shape.beta) == pytest.approx((1.2333333, 1.2333333))
        expected = torch.tensor([1.06846, 0.89439, 0.89439, 1.06846], dtype=torch.float64)
        assert_close(group_weights(rates, shape, 1e6), expected, rtol=1e-5, atol=0)

    def test_skewed_rates(self):
        rates = torch.tensor([0.25, 0.25, 0.5, 0.125], dtype=torch.float64)
        shape = fitted_shape(rates)
        assert (shape.alpha, shape.beta) == pytest.approx((1.67229, 2.71806), rel=1e-5)
        expected = torch.tensor([0.58937, 0.58937, 0.74224, 0.72068], dtype=torch.float64)
        assert_close(group_weights(rates, shape, 1e6), expected, rtol=1e-5, atol=0)

    def test_a_spread_beyond_any_beta_weighs_alike(self):
        """Rates 0 and 1: v = 1/2 above mu (1 - mu) = 1/4, c < 0."""
        assert fitted_shape(torch.tensor([0.0, 1.0], dtype=torch.float64)) == BetaShape()

    @given(st.lists(st.integers(1, 15), min_size=2, max_size=6))
    def test_weights_are_inverse_densities(self, counts):
        rates = torch.tensor(counts, dtype=torch.float64) / 16
        shape = fitted_shape(rates)
        expected = 1 / beta_distribution.pdf(rates.numpy(), shape.alpha, shape.beta)
        assert_close(group_weights(rates, shape, 1e6), torch.from_numpy(expected).clamp(max=1e6), rtol=1e-6, atol=0)


class TestAdvantages:
    def test_by_hand(self):
        """Group of rate 1/8 weighs 1.06846: its success gets 1.06846 * 7/8, its failures -1.06846 / 8."""
        found = run(*batch_of(1, 3, 5, 7)).advantages
        assert found[0].item() == pytest.approx(1.06846 * 7 / 8, rel=1e-5)
        assert found[1].item() == pytest.approx(-1.06846 / 8, rel=1e-5)
        assert found[8].item() == pytest.approx(0.89439 * 5 / 8, rel=1e-5)

    def test_three_halves_is_a_multiple_of_population_grpo(self):
        """1 / BetaPDF(p; 1.5, 1.5) = (pi / 8) / sqrt(p (1 - p))."""
        rates = torch.tensor([0.25, 0.5, 0.875], dtype=torch.float64)
        weights = group_weights(rates, BetaShape(alpha=1.5, beta=1.5), 1e6)
        assert_close(weights, math.pi / 8 / (rates * (1 - rates)).sqrt())

    def test_swapping_success_and_failure_flips_every_sign_and_swaps_the_shape(self):
        rewards, ids = batch_of(1, 2, 2, 5)
        there, back = run(rewards, ids), run([1 - r for r in rewards], ids)
        assert_close(back.advantages, -there.advantages)
        assert back.stats["bnpo/alpha"] == pytest.approx(there.stats["bnpo/beta"])

    def test_bounds_are_mapped(self):
        rewards, ids = batch_of(1, 3, 5, 7)
        shifted = [10 * r - 5 for r in rewards]
        assert_close(run(shifted, ids, lo=-5.0, hi=5.0).advantages, run(rewards, ids).advantages)

    def test_several_rewards_one_by_one(self):
        """Two rewards: the mean of their advantages; weights 3 and 1; an empty component is 0."""
        first, ids = batch_of(1, 3, 5, 7)
        second, _ = batch_of(2, 2, 4, 1)
        alone = [run(column, ids).advantages for column in (first, second)]
        both = [list(pair) for pair in zip(first, second, strict=True)]
        assert_close(run(both, ids).advantages, (alone[0] + alone[1]) / 2)
        assert_close(run(both, ids, weights=(3.0, 1.0)).advantages, (3 * alone[0] + alone[1]) / 4)
        empty = [[r, 0.0] for r in first]
        assert_close(run(empty, ids).advantages, alone[0] / 2)

    def test_a_missing_component_hurts_no_other(self):
        first, ids = batch_of(1, 3, 5, 7)
        second, _ = batch_of(2, 2, 4, 1)
        both = [list(pair) for pair in zip(first, second, strict=True)]
        both[3][1] = math.nan
        kept = [place for place in range(len(ids)) if place != 3]
        other = run([second[i] for i in kept], [ids[i] for i in kept]).advantages
        found = run(both, ids).advantages
        alone = run(first, ids).advantages
        assert_close(found[3], alone[3] / 2)
        assert_close(found[torch.tensor(kept)], (alone[torch.tensor(kept)] + other) / 2)


class TestWhereTheReleasedCodeBreaks:
    def test_groups_equally_hard(self):
        result = run(*batch_of(2, 2))
        assert (result.stats["bnpo/alpha"], result.stats["bnpo/beta"]) == (1.0, 1.0)
        assert result.advantages[0].item() == pytest.approx(0.75)

    def test_equal_means_of_other_orders_count_as_equally_hard(self):
        """0.1 + 0.2 + 0.6 and 0.6 + 0.2 + 0.1 differ in the last digit of float64; that is no spread."""
        result = run([0.1, 0.2, 0.6, 0.6, 0.2, 0.1], [0, 0, 0, 1, 1, 1])
        assert result.stats["bnpo/alpha"] == 1.0
        assert result.advantages[0].item() == pytest.approx(0.1 - 0.3)

    @pytest.mark.parametrize("count", [0, 8])
    def test_all_failures_or_all_successes(self, count):
        assert (run(*batch_of(count, count)).advantages == 0).all()

    def test_one_group(self):
        assert run(*batch_of(2)).advantages[0].item() == pytest.approx(0.75)

    def test_a_group_of_one_is_left_out(self):
        rewards, ids = batch_of(1, 3, 5, 7)
        found = run([*rewards, 1.0], [*ids, 99]).advantages
        assert found[-1] == 0
        assert_close(found[:-1], run(rewards, ids).advantages)

    def test_the_cap_binds_and_is_counted(self):
        """Rates near 0 under alpha > 1 have next to no density."""
        rewards = [1e-7, 0.0, 0.5, 0.4, 0.5, 0.6, 0.45, 0.55]
        result = run(rewards, [0, 0, 1, 1, 2, 2, 3, 3], max_weight=3.0)
        assert result.stats["bnpo/capped"] >= 1
        assert result.advantages.isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, r"expects rewards in \[0, 1\], found 1.5.*Set `lo` and `hi`"),
            ({"lo": 2.0, "hi": 2.0}, "needs lo < hi"),
            ({"hi": 2.0, "weights": (1.0, 1.0)}, "has 1 rewards and `weights`"),
        ],
    )
    def test_bad_ranges_and_weights(self, options, message):
        with pytest.raises(ValueError, match=message):
            run([1.5, 0.0], [0, 0], **options)
