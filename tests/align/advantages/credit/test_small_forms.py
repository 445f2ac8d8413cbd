"""Gain over a reference, novelty bonus, gated supervised pull."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.objectives import gated_pull

tensor = torch.tensor


class TestReferenceGain:
    GIVEN = AdvantageInputs(
        rewards=tensor([3.0, 1.0, 5.0]), reference_rewards=tensor([0.0, 1.0, 1.0]), group_ids=tensor([0, 0, 1])
    )

    def test_by_hand(self):
        """Gains 3 0 4. Group 0: root mean square sqrt(9/2); group 1: 4. Batch: sqrt(25/3)."""
        assert estimate("reference_gain", self.GIVEN).advantages.tolist() == [3, 0, 4]
        by_group = estimate("reference_gain", self.GIVEN, scale="group", eps=0.0).advantages
        assert_close(by_group, tensor([math.sqrt(2), 0.0, 1.0]))
        by_batch = estimate("reference_gain", self.GIVEN, scale="batch", eps=0.0).advantages
        assert_close(by_batch, tensor([3.0, 0.0, 4.0]) / math.sqrt(25 / 3))

    def test_needs_no_group_and_keeps_a_common_gain(self):
        given = AdvantageInputs(rewards=tensor([2.0, 2.0]), reference_rewards=tensor([1.0, 1.0]))
        assert estimate("reference_gain", given).advantages.tolist() == [1, 1]
        unknown = AdvantageInputs(rewards=tensor([2.0, 2.0]), reference_rewards=tensor([1.0, math.nan]))
        assert estimate("reference_gain", unknown).advantages.tolist() == [1, 0]


class TestNoveltyBonus:
    def given(self, final=True):
        states = tensor([[1, 2, 3], [1, 2, 1]])
        return AdvantageInputs(
            rewards=tensor([0.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 2),
            state_key=states if final else states[:, :2],
        )

    def test_off_by_default(self):
        result = estimate("novelty_bonus", self.given())
        assert (result.advantages == 0).all()
        assert result.advantages.shape == (2, 2)
        assert result.state == {}

    def test_by_hand_over_two_updates(self):
        """Update 1: nothing known. Row 0 reaches 2 and 3 for the first time, row 1 reaches 2 and walks back to 1:
        bonuses 1 1 | 1 0, mean 3/4. Counts: 1 -> 2, 2 -> 2, 3 -> 1.

        Update 2: 2 has 1/sqrt(3), 3 has 1/sqrt(2), walking back 0.
        """
        first = estimate("novelty_bonus", self.given(), coefficient=2.0)
        assert_close(first.advantages, 2 * tensor([[0.25, 0.25], [0.25, -0.75]]))
        assert {name: value.tolist() for name, value in first.state.items()} == {"keys": [1, 2, 3], "counts": [2, 2, 1]}
        second = estimate("novelty_bonus", self.given(), coefficient=1.0, state=first.state)
        bonus = tensor([[3**-0.5, 2**-0.5], [3**-0.5, 0.0]])
        assert_close(second.advantages, bonus - bonus.mean())
        assert second.state["counts"].tolist() == [4, 4, 2]

    def test_without_the_final_state_the_last_step_earns_nothing(self):
        """Bonuses 1 - | 1 -: mean 1/2."""
        found = estimate("novelty_bonus", self.given(final=False), coefficient=1.0).advantages
        assert_close(found, tensor([[0.5, -0.5], [0.5, -0.5]]))


class TestGatedPull:
    LOG_PROBS = tensor([[-1.0, -2.0], [-3.0, -4.0]])

    def test_by_hand(self):
        """Positive gate: row 0 open, row 1 (A = 0) closed. Exponential at T = 2: e^1 and e^0; capped at 2."""
        assert gated_pull(self.LOG_PROBS, tensor([2.0, 0.0])).tolist() == [[1, 2], [0, 0]]
        found = gated_pull(self.LOG_PROBS, tensor([2.0, 0.0]), gate="exponential", temperature=2.0)
        assert_close(found, tensor([[math.e, 2 * math.e], [3.0, 4.0]]))
        capped = gated_pull(self.LOG_PROBS, tensor([2.0, 0.0]), gate="exponential", temperature=2.0, cap=2.0)
        assert capped.tolist() == [[2, 4], [3, 4]]

    def test_a_closed_gate_has_no_gradient_even_at_impossible_tokens(self):
        log_probs = tensor([[-1.0, -math.inf]], requires_grad=True)
        loss = gated_pull(log_probs, tensor([[1.0, -1.0]])).sum()
        loss.backward()
        assert loss.item() == 1
        assert log_probs.grad.tolist() == [[-1, 0]]

    @given(advantage=st.floats(-5, 5), log_prob=st.floats(-9, -0.1))
    def test_the_gradient_is_minus_the_weight(self, advantage, log_prob):
        log_probs = tensor([log_prob], dtype=torch.float64, requires_grad=True)
        advantages = tensor([advantage], dtype=torch.float64, requires_grad=True)
        gated_pull(log_probs, advantages, gate="exponential", cap=10.0).sum().backward()
        assert log_probs.grad.item() == pytest.approx(-min(math.exp(advantage), 10.0))
        assert advantages.grad is None

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"no gate 'positiv'\. Did you mean `positive`"):
            gated_pull(self.LOG_PROBS, tensor([1.0, 1.0]), gate="positiv")
        with pytest.raises(ValueError, match=r"must be above 0, found 0\.0"):
            gated_pull(self.LOG_PROBS, tensor([1.0, 1.0]), gate="exponential", temperature=0.0)
