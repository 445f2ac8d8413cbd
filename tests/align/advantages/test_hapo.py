"""HAPO: token-weighted groups, entropy positions, clip ranges and redistribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.objectives import adaptive_clip, clipped_surrogate, entropy_positions, hapo_surrogate, redistributed


def run(rewards, lengths, ids=None, **options):
    ids = [0] * len(rewards) if ids is None else ids
    inputs = AdvantageInputs(rewards=torch.tensor(rewards), group_ids=torch.tensor(ids), lengths=torch.tensor(lengths))
    return estimate("hapo_token_group", inputs, **options)


class TestTokenGroupAverage:
    def test_by_hand(self):
        """r = 1, 0 with L = 10, 30: mu = .25, sig^2 = (10 * .5625 + 30 * .0625) / 40 = .1875, sig = .43301."""
        assert_close(run([1.0, 0.0], [10, 30], eps=0.0).advantages, torch.tensor([1.7320508, -0.5773503]))

    def test_equal_lengths_are_a_multiple_of_grpo(self):
        rewards = [1.0, 0.0, 0.0, 0.5]
        inputs = AdvantageInputs(rewards=torch.tensor(rewards), group_ids=torch.zeros(4).long())
        plain = estimate("grpo", inputs, eps=0.0).advantages
        assert_close(run(rewards, [7] * 4, eps=0.0).advantages, math.sqrt(4 / 3) * plain)

    def test_without_the_deviation_it_is_opo(self):
        inputs = AdvantageInputs(
            rewards=torch.tensor([1.0, 0.0]), group_ids=torch.zeros(2).long(), lengths=torch.tensor([10, 30])
        )
        found = run([1.0, 0.0], [10, 30], standardise=False).advantages
        assert torch.equal(found, estimate("opo", inputs).advantages)

    def test_a_group_beyond_the_threshold_uses_grpo(self):
        """r = 1, 0 with L = 1, 100: mu = 1/101, sig = 10/101, A = 10 and -.1; the other group keeps its own."""
        result = run([1.0, 0.0, 1.0, 0.0], [1, 100, 10, 30], [0, 0, 1, 1], eps=0.0)
        root = math.sqrt(0.5)
        assert_close(result.advantages, torch.tensor([root, -root, 1.7320508, -0.5773503]))
        assert result.stats["fallbacks"] == 1
        assert run([1.0, 0.0], [1, 100], threshold=11.0).advantages[0].item() == pytest.approx(10, rel=1e-4)

    @given(
        group=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=2, max_size=6).filter(
            lambda rows: len({r for r, _ in rows}) > 1
        )
    )
    def test_slow_loop_and_token_weighted_sum(self, group):
        rewards, lengths = [r / 8 for r, _ in group], [length for _, length in group]
        tokens = sum(lengths)
        mu = sum(r * length for r, length in zip(rewards, lengths, strict=True)) / tokens
        sig = math.sqrt(sum(length * (r - mu) ** 2 for r, length in zip(rewards, lengths, strict=True)) / tokens)
        found = run(rewards, lengths, threshold=1e9).advantages
        assert_close(found, torch.tensor([(r - mu) / (sig + 1e-6) for r in rewards]), rtol=1e-5, atol=1e-6)
        assert float((found * torch.tensor(lengths)).sum()) == pytest.approx(0, abs=1e-3)


ENTROPIES = torch.tensor([[1.0, math.e, math.e**3, 99.0], [math.e**-1, math.e**2, 99.0, 99.0]])
MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


class TestEntropyPositions:
    def test_by_hand(self):
        """Logs -1 0 1 2 3, the ceil(.8 * 5) = 4th is 2: h is -3 -2 -1 0 1 over D = sqrt(15/5); scales 3/D and 1/D."""
        found = entropy_positions(ENTROPIES, MASK)
        expected = torch.tensor([[-2 / 3, -1 / 3, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
        assert_close(found.positions, expected, rtol=1e-5, atol=1e-6)
        assert (found.pivot, found.deviation) == pytest.approx((2.0, math.sqrt(3)), rel=1e-5)
        assert (found.high_scale, found.low_scale) == pytest.approx((1 / math.sqrt(3), math.sqrt(3)), rel=1e-5)
        assert found.uncertain.tolist() == [[False, False, True, False], [False] * 4]

    def test_the_released_sign_error(self):
        corrected = entropy_positions(ENTROPIES, MASK).positions
        released = entropy_positions(ENTROPIES, MASK, negative_side="released").positions
        assert_close(released, corrected.abs())

    @given(seed=st.integers(0, 99), quantile=st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    def test_range_and_ends(self, seed, quantile):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(3, 5, generator=generator) < 0.7
        found = entropy_positions(torch.rand(3, 5, generator=generator), mask, quantile=quantile)
        inside = found.positions[mask]
        assert (found.positions[~mask] == 0).all()
        if len(inside):
            assert inside.abs().max() <= 1
            assert (inside == 0).any()  # the pivot is one of the tokens
            assert found.high_scale == 0 or inside.max() == 1
            assert found.low_scale == 0 or inside.min() == -1

    @pytest.mark.parametrize("entropies", [torch.zeros(2, 2), torch.full((2, 2), 0.7)])
    def test_equal_entropies_and_no_token(self, entropies):
        assert (entropy_positions(entropies, torch.ones(2, 2, dtype=torch.bool)).positions == 0).all()
        assert (entropy_positions(entropies, torch.zeros(2, 2, dtype=torch.bool)).positions == 0).all()

    def test_the_estimator_hands_them_on(self):
        inputs = AdvantageInputs(
            rewards=torch.tensor([1.0, 0.0]), group_ids=torch.zeros(2).long(), mask=MASK, entropies=ENTROPIES
        )
        result = estimate("hapo_token_group", inputs)
        assert_close(result.aux["entropy_positions"], entropy_positions(ENTROPIES, MASK).positions.float())
        assert result.aux["uncertain"].tolist() == [[False, False, True, False], [False] * 4]
        assert result.stats["hapo/pivot"] == pytest.approx(2.0, rel=1e-5)


POSITIONS = torch.tensor([[0.5, -0.5, 0.0]])


class TestLoss:
    def test_clip_ranges_by_hand(self):
        """e = .2: uncertain .2 / .2 * 1.5; certain .2 * 1.5 / .2; the pivot itself .2 / .2."""
        low, high = adaptive_clip(POSITIONS)
        assert_close(low, torch.tensor([[0.2, 0.3, 0.2]]))
        assert_close(high, torch.tensor([[0.3, 0.2, 0.2]]))

    def test_released_positions_narrow_the_certain_range(self):
        low, high = adaptive_clip(POSITIONS.abs(), uncertain=POSITIONS > 0)
        assert_close(low, torch.tensor([[0.2, 0.1, 0.2]]))
        assert_close(high, torch.tensor([[0.3, 0.2, 0.2]]))

    def test_redistribution_by_hand(self):
        """Zone .9 .. 1.15 and .85 .. 1.1. A = 2: uncertain 2 inside, 3 outside; certain 1 inside, 2 outside."""
        low, high = adaptive_clip(POSITIONS[:, :2])
        advantages = torch.tensor([2.0])
        for ratios, expected in (([1.0, 1.0], [2.0, 1.0]), ([1.2, 0.8], [3.0, 2.0])):
            found = redistributed(advantages, POSITIONS[:, :2], torch.tensor([ratios]), low, high)
            assert_close(found, torch.tensor([expected]))

    def test_strengths_of_zero_are_the_plain_clipped_loss(self):
        generator = torch.Generator().manual_seed(0)
        new, old = torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator)
        positions = 2 * torch.rand(4, 5, generator=generator) - 1
        advantages = torch.randn(4, generator=generator)
        loss = hapo_surrogate(new, old, advantages, positions, clip_strength=0.0, advantage_strength=0.0)
        assert_close(loss, clipped_surrogate(new, old, advantages, 0.2, 0.2, 10.0))

    def test_by_hand(self):
        """Ratios 1.4 and .6, A = 1 and -1. Uncertain (hhat .5): outside, A 1.5, clipped at 1.3 -> -1.95. Certain (-.5):
        outside, A -1, lower bound .7 -> .7."""
        new = torch.tensor([[1.4], [0.6]]).log()
        loss = hapo_surrogate(new, torch.zeros(2, 1), torch.tensor([1.0, -1.0]), torch.tensor([[0.5], [-0.5]]))
        assert_close(loss, torch.tensor([[-1.95], [0.7]]))

    def test_gradient_by_finite_differences(self):
        new = torch.tensor([[0.05, -0.07, 0.4], [-0.5, 0.02, 0.01]], dtype=torch.float64, requires_grad=True)
        positions = torch.tensor([[0.4, -0.3, 0.9], [-0.8, 0.2, -0.1]], dtype=torch.float64)
        advantages = torch.tensor([1.0, -2.0], dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda lp: hapo_surrogate(lp, torch.zeros(2, 3).double(), advantages, positions), (new,)
        )

    def test_a_negative_range_is_refused(self):
        with pytest.raises(ValueError, match="distances from 1"):
            clipped_surrogate(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), torch.tensor([[0.1, -0.1]]), 0.2)
