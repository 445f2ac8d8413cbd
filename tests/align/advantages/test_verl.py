"""VERL: effective rank and its features, the bonus, both timings, and the state."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.verl_effective_rank import effective_rank, rank_features

FEATURES = torch.tensor([[2.0, 0.2, 0.0], [4.0, 0.4, 0.0], [3.0, 0.0, 0.1], [3.0, 0.2, -0.1]])


def run(features=FEATURES, rewards=(1.0, 0.0, 0.0, 1.0), state=None, **options):
    inputs = AdvantageInputs(
        rewards=torch.tensor(rewards), group_ids=torch.zeros(len(rewards)).long(), rank_features=features
    )
    return estimate("verl_effective_rank", inputs, state=state, **options)


class TestEffectiveRank:
    def test_by_hand(self):
        """Rows +-3 e1, +-3 e2 have singular values sqrt 18 twice: two dimensions. +-3 e1, +-1 e2: shares 3/4 and 1/4,
        exp(-(.75 ln .75 + .25 ln .25)) = 1.75477."""
        even = torch.tensor([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
        assert effective_rank(even) == pytest.approx(2.0, rel=1e-6)
        uneven = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
        assert effective_rank(uneven) == pytest.approx(1.75477, rel=1e-5)

    def test_ends(self):
        assert effective_rank(torch.ones(1, 3)) == 0.0
        assert effective_rank(torch.full((5, 3), 0.1)) == 1.0

    @given(length=st.integers(2, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
    def test_bounds_and_invariance(self, length, width, seed):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(length, width, generator=generator, dtype=torch.float64)
        found = effective_rank(hidden)
        assert 1 - 1e-6 <= found <= min(length - 1, width) + 1e-6
        rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
        for other in (7 * hidden, hidden @ rotation, hidden + torch.randn(width, generator=generator)):
            assert effective_rank(other) == pytest.approx(found, rel=1e-5)

    @given(length=st.integers(2, 9), seed=st.integers(0, 99))
    def test_slow_loop_by_singular_values(self, length, seed):
        hidden = torch.randn(length, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sigma = torch.linalg.svdvals(hidden - hidden.mean(0))
        share = sigma / (sigma.sum() + 1e-8)
        assert effective_rank(hidden) == pytest.approx(math.exp(-float((share * (share + 1e-8).log()).sum())), rel=1e-5)


class TestFeatures:
    def test_slow_loop(self):
        """Checkpoints at 4, 8, 12 of 15 tokens, each on its first t + 1 tokens."""
        hidden = torch.randn(15, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ranks = [effective_rank(hidden[: t + 1]) for t in (4, 8, 12)]
        second, third = ranks[1] - ranks[0], ranks[2] - (ranks[0] + ranks[1]) / 2
        expected = [effective_rank(hidden), (second + third) / 2, third - second]
        assert_close(rank_features(hidden, stride=4), torch.tensor(expected), rtol=1e-5, atol=1e-6)

    def test_short_responses(self):
        hidden = torch.randn(15, 6, generator=torch.Generator().manual_seed(1))
        assert rank_features(hidden, stride=40)[1:].tolist() == [0.0, 0.0]  # no checkpoint
        assert rank_features(hidden, stride=7)[2] == 0.0  # two checkpoints: a velocity, no acceleration
        assert rank_features(hidden, stride=7)[1] != 0.0
        assert rank_features(hidden[:1]).tolist() == [0.0, 0.0, 0.0]

    def test_velocity_looks_at_the_window_only(self):
        hidden = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
        whole, recent = rank_features(hidden, stride=4, window=15), rank_features(hidden[-15:], stride=4)
        assert_close(whole[1:], recent[1:])
        assert whole[0] != recent[0]


def phi(row, means):
    deviations = [max(-5, min(5, (x - m) / (abs(m) + 1e-8))) for x, m in zip(row, means, strict=True)]
    weight = 1 / (1 + math.exp(-2 * deviations[2]))
    return weight * math.tanh(deviations[0]) + (1 - weight) * math.tanh(deviations[1])


class TestBonus:
    def test_by_hand_against_the_first_batch_itself(self):
        """Means 3, .2, 0. Row 1: d = 1/3, 1, 0; w = 1/2; Phi = (.32151 + .76159) / 2 = .54155, cut to .86603 / 2."""
        result = run()
        root = math.sqrt(0.75)
        assert result.advantages[1].item() == pytest.approx(-root + root / 2, rel=1e-5)
        assert result.advantages[0].item() == pytest.approx(root, rel=1e-5)  # Phi < 0
        assert run(kappa=0.1).advantages[1].item() == pytest.approx(-root + 0.54155, rel=1e-4)

    def test_slow_loop_with_remembered_means(self):
        first = run()
        means = first.state["means"].tolist()
        assert means == pytest.approx([3.0, 0.2, 0.0], abs=1e-6)
        found = run(1.3 * FEATURES + 0.01, state=first.state)
        base = estimate(
            "grpo",
            AdvantageInputs(rewards=torch.tensor([1.0, 0.0, 0.0, 1.0]), group_ids=torch.zeros(4).long()),
            eps=1e-6,
        )
        for row, before, after in zip(
            (1.3 * FEATURES + 0.01).tolist(), base.advantages.tolist(), found.advantages, strict=True
        ):
            expected = before + min(max(phi(row, means), 0.0), abs(before) / 2)
            assert after.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
        now = (1.3 * FEATURES + 0.01).mean(0)
        assert found.state["means"].tolist() == pytest.approx(
            [m + 0.3 * (x - m) for m, x in zip(means, now.tolist(), strict=True)], rel=1e-5
        )

    @given(seed=st.integers(0, 50), kappa=st.sampled_from([0.5, 2.0, 10.0]))
    def test_only_adds_and_zero_stays_zero(self, seed, kappa):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(4, 3, generator=generator)
        base = torch.tensor([1.0, -1.0, 0.0, 0.5])
        inputs = AdvantageInputs(rewards=torch.zeros(4), rank_features=features, advantages=base)
        found = estimate("verl_effective_rank", inputs, kappa=kappa).advantages
        assert (found >= base).all()
        assert (found <= base + base.abs() / kappa + 1e-6).all()
        assert found[2] == 0

    def test_the_last_token_only(self):
        mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
        inputs = AdvantageInputs(
            rewards=torch.tensor([0.0, 1.0]),
            rank_features=FEATURES[:2],
            mask=mask,
            advantages=torch.tensor([1.0, -1.0]),
        )
        everywhere = estimate("verl_effective_rank", inputs).advantages
        found = estimate("verl_effective_rank", inputs, where="last").advantages
        assert_close(found, torch.tensor([[1.0, everywhere[0], 0.0], [-1.0, 0.0, everywhere[1]]]))
        assert everywhere[1] > -1.0

    def test_the_running_score_quiets_the_bonus(self):
        """Scores 1 0 0 1 in the range 0 .. 1: half way up, half the bonus (.27078, below the bound)."""
        root = math.sqrt(0.75)
        result = run(score_range=(0.0, 1.0), kappa=0.1)
        assert result.advantages[1].item() == pytest.approx(-root + 0.54155 / 2, rel=1e-4)
        assert result.state["score"] == pytest.approx(0.5)
        with pytest.raises(ValueError, match="`score_range` must rise"):
            run(score_range=(1.0, 1.0))


def test_the_released_timing():
    """Step 1 is not shaped; step 2 compares with 0 and saturates; step 3 with 0.3 times the means of step 1."""
    first = run(timing="released")
    root = math.sqrt(0.75)
    assert_close(first.advantages, torch.tensor([root, -root, -root, root]), rtol=1e-5, atol=0)
    second = run(timing="released", state=first.state, kappa=0.1)
    assert second.advantages[1].item() == pytest.approx(-root + math.tanh(5.0), rel=1e-4)
    assert_close(second.state["means"], 0.3 * FEATURES.double().mean(0))
