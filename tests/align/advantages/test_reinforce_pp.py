"""REINFORCE++ and its baseline form: by hand, over holes of the mask, against slow loops."""

import math
import statistics

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

MASK = torch.tensor([[1, 0, 1], [1, 0, 0]])


def inputs(rewards, ids=None, **fields):
    ids = torch.zeros(len(rewards), dtype=torch.int64) if ids is None else torch.tensor(ids)
    return AdvantageInputs(rewards=torch.tensor(rewards), group_ids=ids, **fields)


def whitened(values):
    """Unbiased, eps 1e-8 under the root."""
    mean, variance = statistics.fmean(values), statistics.variance(values)
    return [(value - mean) / math.sqrt(variance + 1e-8) for value in values]


class TestReturns:
    def test_by_hand(self):
        """Row 0 has positions 0 and 2, row 1 position 0; rewards 4 and 1. gamma 1: returns 4 4 1, mean 3, variance
        (1 + 1 + 4) / 2 = 3. The masked positions are 0."""
        found = estimate("reinforce_pp", inputs([4.0, 1.0], mask=MASK)).advantages
        third = 1 / math.sqrt(3)
        assert_close(found, torch.tensor([[third, 0.0, third], [-2 * third, 0.0, 0.0]]))

    def test_a_hole_does_not_discount(self):
        """gamma 1/2: returns 2 (one trained step before the end, the hole skipped), 4, 1: mean 7/3."""
        found = estimate("reinforce_pp", inputs([4.0, 1.0], mask=MASK), gamma=0.5).advantages
        low, high, other = whitened([2.0, 4.0, 1.0])
        assert_close(found, torch.tensor([[low, 0.0, high], [other, 0.0, 0.0]]))

    def test_kl_is_taken_off_every_position(self):
        """k1 = log pi - log ref = 1 at positions 0 and 2 of row 0, 0 in row 1; beta 1/2: rewards -.5, 3.5 | 1; returns
        3, 3.5 | 1."""
        logprobs = torch.tensor([[1.0, 9.0, 1.0], [0.0, 9.0, 9.0]])
        batch = inputs([4.0, 1.0], mask=MASK, logprobs=logprobs, ref_logprobs=torch.zeros(2, 3))
        first, second, third = whitened([3.0, 3.5, 1.0])
        found = estimate("reinforce_pp", batch, kl_beta=0.5).advantages
        assert_close(found, torch.tensor([[first, 0.0, second], [third, 0.0, 0.0]]))

    def test_kl_needs_both_policies(self):
        with pytest.raises(ValueError, match="reinforce_pp needs `logprobs`, `ref_logprobs`"):
            estimate("reinforce_pp", inputs([4.0, 1.0], mask=MASK), kl_beta=0.5)

    def test_token_rewards_replace_the_outcome(self):
        tokens = torch.tensor([[1.0, 9.0, 2.0], [0.0, 9.0, 9.0]])
        found = estimate("reinforce_pp", inputs([7.0, 7.0], mask=MASK, token_rewards=tokens)).advantages
        first, second, third = whitened([3.0, 2.0, 0.0])
        assert_close(found, torch.tensor([[first, 0.0, second], [third, 0.0, 0.0]]))

    def test_slow_loop(self):
        generator = torch.Generator().manual_seed(5)
        mask = torch.rand(6, 7, generator=generator) < 0.6
        mask[:, 0] = True
        rewards = torch.rand(6, generator=generator).tolist()
        returns = {}
        for row in range(6):
            places = [t for t in range(7) if mask[row, t]]
            for order, t in enumerate(places):
                returns[row, t] = 0.9 ** (len(places) - 1 - order) * rewards[row]
        expected = torch.zeros(6, 7)
        for (row, t), value in zip(returns, whitened(list(returns.values())), strict=True):
            expected[row, t] = value
        found = estimate("reinforce_pp", inputs(rewards, mask=mask), gamma=0.9).advantages
        assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_pictures_without_a_mask_are_whitened_over_the_batch(self):
        found = estimate("reinforce_pp", AdvantageInputs(rewards=torch.tensor([1.0, 2.0, 6.0]))).advantages
        assert_close(found, torch.tensor(whitened([1.0, 2.0, 6.0])))
        equal_lengths = inputs([1.0, 2.0, 6.0], mask=torch.ones(3, 1))
        assert_close(estimate("reinforce_pp", equal_lengths).advantages[:, 0], found)

    @pytest.mark.parametrize("rewards", [[98.3] * 5, [0.5]])
    def test_nothing_to_compare_is_zero(self, rewards):
        assert (estimate("reinforce_pp", inputs(rewards, mask=torch.ones(len(rewards), 1))).advantages == 0).all()

    def test_the_mean_over_positions_is_zero(self):
        found = estimate("reinforce_pp", inputs([4.0, 1.0], mask=MASK), gamma=0.5).advantages
        assert float(found.sum()) == pytest.approx(0.0, abs=1e-6)


class TestBaseline:
    def test_by_hand(self):
        """Groups [4, 0] -> 2, -2 and [3, 3] -> 0, 0. Lengths 1 1 2 1: values 2 -2 0 0 0, mean 0, variance 8/4 = 2."""
        mask = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1]])
        found = estimate("reinforce_pp_baseline", inputs([4.0, 0.0, 3.0, 3.0], [0, 0, 1, 1], mask=mask)).advantages
        root = math.sqrt(2)
        assert_close(found, torch.tensor([[root, 0.0], [-root, 0.0], [0.0, 0.0], [0.0, 0.0]]))

    def test_equal_groups_share_the_shift_of_the_mean(self):
        """Lengths 3 and 1: values 2 2 2 -2 0 0, mean 2/3, variance 4 * (16/9) + ... = (48 + 64 + 8) / 9 / 5 = 8/3."""
        mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
        found = estimate("reinforce_pp_baseline", inputs([4.0, 0.0, 3.0, 3.0], [0, 0, 1, 1], mask=mask)).advantages
        assert found[2, 0].item() == pytest.approx(-2 / 3 / math.sqrt(8 / 3), rel=1e-6)
        assert found[3, 0] == found[2, 0]

    def test_without_division(self):
        found = estimate("reinforce_pp_baseline", inputs([4.0, 0.0]), standardise=False).advantages
        assert found.tolist() == [2.0, -2.0]

    def test_a_group_of_one_is_centred_or_raw(self):
        """Values 2 -2 0: mean 0, variance 4. Raw: 2 -2 6, mean 2, variance (0 + 16 + 16) / 2 = 16."""
        batch = inputs([4.0, 0.0, 6.0], [0, 0, 1])
        assert_close(estimate("reinforce_pp_baseline", batch).advantages, torch.tensor([1.0, -1.0, 0.0]))
        raw = estimate("reinforce_pp_baseline", batch, singleton="raw").advantages
        assert_close(raw, torch.tensor([0.0, -1.0, 1.0]))
