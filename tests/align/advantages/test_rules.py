"""The rules around every formula, tried on formulas made for it: what reaches them and what is done to their answer."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest
import torch

from align.advantages import AdvantageInputs, AdvantageResult, estimate
from align.advantages.registry import Estimator
from align.advantages.rules import apply_rules

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class Plain:
    kind: Literal["plain"] = "plain"


def made(function, **declaration):
    declaration = {"requires": ("group_ids",), "exact_zero": False, "min_group": 1, **declaration}
    return Estimator(options_type=Plain, function=function, **declaration)


def inputs(rewards, ids=None, **fields):
    ids = None if ids is None else torch.tensor(ids)
    return AdvantageInputs(rewards=torch.tensor(rewards), group_ids=ids, **fields)


class TestWhatReachesTheFormula:
    def test_scorable_rows_in_float64_with_dense_ids_and_without_gradient(self):
        seen = []

        def formula(given, options):
            seen.append(given)
            return given.rewards

        rewards = torch.tensor([1.0, NAN, 3.0], requires_grad=True)
        batch = AdvantageInputs(
            rewards=rewards, group_ids=torch.tensor([90, 90, -7]), metric=torch.ones(3), answers=["a", "b", None]
        )
        result = apply_rules(made(formula), batch, Plain())
        assert seen[0].rewards.tolist() == [1.0, 3.0]
        assert seen[0].rewards.dtype == seen[0].metric.dtype == torch.float64
        assert seen[0].ids.tolist() == [1, 0]
        assert seen[0].answers == ["a", None]
        assert not seen[0].rewards.requires_grad
        assert not result.advantages.requires_grad
        assert result.advantages.dtype == torch.float32

    def test_integer_rewards_are_numbers_too(self):
        assert estimate("dr_grpo", inputs([1, 0], [0, 0])).advantages.tolist() == [0.5, -0.5]

    def test_lengths_are_counted_from_the_mask(self):
        seen = []

        def formula(given, options):
            seen.append(given.lengths.tolist())
            return given.rewards

        entry = made(formula, requires=("lengths",))
        mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
        apply_rules(entry, inputs([1.0, 2.0], mask=mask), Plain())
        apply_rules(entry, inputs([1.0, 2.0], mask=mask, lengths=torch.tensor([9, 8])), Plain())
        assert seen == [[2, 1], [9, 8]]

    def test_nan_in_a_required_field_makes_a_sample_unscorable_unless_it_is_masked(self):
        entry = made(lambda given, options: given.rewards, requires=("entropies",))
        entropies = torch.tensor([[NAN, 1.0], [1.0, NAN], [1.0, 1.0]])
        mask = torch.tensor([[0, 1], [1, 1], [1, 1]])
        result = apply_rules(entry, inputs([1.0, 2.0, 3.0], entropies=entropies, mask=mask), Plain())
        assert result.advantages.tolist() == [1.0, 0.0, 3.0]
        assert result.stats["unscored"] == 1

    def test_a_stateful_formula_gets_the_state_and_returns_the_next(self):
        def formula(given, options, state):
            count = state.get("count", 0)
            return AdvantageResult(advantages=given.rewards + count, state={"count": count + 1})

        entry = made(formula, stateful=True)
        first = apply_rules(entry, inputs([1.0], [0]), Plain())
        second = apply_rules(entry, inputs([1.0], [0]), Plain(), first.state)
        assert (first.advantages.item(), second.advantages.item()) == (1.0, 2.0)
        assert second.state == {"count": 2}
        nothing = apply_rules(entry, inputs([NAN], [0]), Plain(), second.state)
        assert nothing.state == {"count": 2}  # a step without a score does not lose the statistics


class TestWhatIsDoneToItsAnswer:
    def test_exact_zero_for_equal_rewards_unless_declared_otherwise(self):
        def ones(given, options):
            return torch.ones_like(given.rewards)

        batch = inputs([5.0, 5.0, 1.0, 2.0], [0, 0, 1, 1])
        assert apply_rules(made(ones, exact_zero=True), batch, Plain()).advantages.tolist() == [0, 0, 1, 1]
        assert apply_rules(made(ones), batch, Plain()).advantages.tolist() == [1, 1, 1, 1]

    def test_with_several_rewards_all_must_be_equal(self):
        def ones(given, options):
            return torch.ones(len(given), dtype=torch.float64)

        entry = made(ones, exact_zero=True, decomposes=True, min_group=2)
        batch = inputs([[5.0, 1.0], [5.0, 1.0], [5.0, 1.0], [5.0, 2.0], [NAN, NAN]], [0, 0, 1, 1, 1])
        result = apply_rules(entry, batch, Plain())
        assert result.advantages.tolist() == [0, 0, 1, 1, 0]
        assert result.stats["frac_reward_zero_std"] == 0.5

    def test_positions_outside_the_mask_are_zero(self):
        def ones(given, options):
            return torch.ones(len(given), 3, dtype=torch.float64)

        mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
        entry = made(ones, granularity="token", requires=("group_ids", "mask"))
        result = apply_rules(entry, inputs([1.0, 2.0, NAN], [0, 0, 0], mask=mask), Plain())
        assert result.advantages.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
        # trained positions: two of sample 0 and three of the unscored sample 2
        assert result.stats["advantages/mean_abs"] == pytest.approx(2 / 5)

    def test_a_sample_without_a_trained_position_gets_nothing(self):
        mask = torch.tensor([[True, False], [False, False]])
        assert estimate("dr_grpo", inputs([3.0, 1.0], [0, 0], mask=mask)).advantages.tolist() == [1.0, 0.0]

    def test_aux_lines_up_with_all_samples(self):
        def formula(given, options):
            return AdvantageResult(advantages=given.rewards, aux={"twice": 2 * given.rewards}, stats={"own": 7.0})

        result = apply_rules(made(formula), inputs([1.0, NAN, 3.0], [0, 0, 0]), Plain())
        assert result.aux["twice"].tolist() == [2.0, 0.0, 6.0]
        assert result.stats["own"] == 7.0

    def test_numbers_that_are_not_finite_are_an_error_and_not_a_signal(self):
        with pytest.raises(ValueError, match="plain gave NaN or infinite advantages"):
            apply_rules(made(lambda given, options: given.rewards / 0), inputs([1.0, 2.0], [0, 0]), Plain())

    def test_a_batch_without_a_score_keeps_its_shape(self):
        entry = made(lambda given, options: 1 / 0, granularity="token", requires=("mask",))
        result = apply_rules(entry, inputs([NAN, NAN], mask=torch.ones(2, 3)), Plain())
        assert result.advantages.tolist() == [[0.0] * 3] * 2


class TestSingletons:
    BATCH = ([4.0, NAN, 1.0, 2.0], [8, 8, 3, 3])  # group 8 has one scored sample

    @pytest.mark.parametrize(("singleton", "first"), [("zero", 0.0), ("raw", 4.0)])
    @pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo", "flow_grpo"])
    def test_gets_zero_or_its_reward(self, kind, singleton, first):
        result = estimate(kind, inputs(*self.BATCH), singleton=singleton)
        assert result.advantages[:2].tolist() == [first, 0.0]
        assert result.stats["singletons"] == 1

    @pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo", "flow_grpo"])
    def test_or_stops_the_run_by_its_name(self, kind):
        with pytest.raises(ValueError, match=rf"{kind} needs at least 2 scored samples.*groups \[8\]"):
            estimate(kind, inputs(*self.BATCH), singleton="error")

    def test_a_full_group_is_none(self):
        assert estimate("rloo", inputs([1.0, 2.0], [8, 8]), singleton="error").stats["singletons"] == 0

    def test_counts_for_the_spread_of_the_batch(self):
        """Rewards 4 | 1 2: the batch's population variance is of 4, 1, 2: mean 7/3, (25 + 16 + 1) / 27 = 14/9."""
        result = estimate("flow_grpo", inputs(*self.BATCH), eps=0.0)
        assert result.advantages[3].item() == pytest.approx(0.5 / math.sqrt(14 / 9))


def test_stats_by_hand():
    """Group 0 equal, group 1 with -0.5 and 0.5, group 2 alone, group 3 unscored.

    Two groups can be compared, one of them is equal. Absolute advantages of the six samples: 0 0 .5 .5 0 0.
    """
    result = estimate("dr_grpo", inputs([3.0, 3.0, 1.0, 2.0, 9.0, NAN], [0, 0, 1, 1, 2, 3]))
    assert result.stats == pytest.approx(
        {
            "frac_reward_zero_std": 0.5,
            "singletons": 1.0,
            "unscored": 1.0,
            "advantages/mean_abs": 1 / 6,
            "advantages/max_abs": 0.5,
            "advantages/frac_nonzero": 1 / 3,
        }
    )


class TestBadInput:
    def test_a_missing_field_is_named_with_what_is_there(self):
        with pytest.raises(ValueError, match=r"grpo needs `group_ids`\. Given: rewards, metric"):
            estimate("grpo", inputs([1.0], metric=torch.ones(1)))

    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_an_infinite_reward_is_named_by_its_row(self, value):
        with pytest.raises(ValueError, match="reward of sample 1 is infinite"):
            estimate("grpo", inputs([1.0, value], [0, 0]))

    def test_several_rewards_where_one_is_expected(self):
        with pytest.raises(ValueError, match=r"one reward per sample, found \[2, 3\].*Combine"):
            estimate("grpo", AdvantageInputs(rewards=torch.ones(2, 3), group_ids=torch.zeros(2, dtype=torch.int64)))

    def test_fields_of_different_length(self):
        with pytest.raises(ValueError, match="`metric` has 3 rows for 2 rewards"):
            inputs([1.0, 2.0], metric=torch.ones(3))

    def test_ids_that_are_floats(self):
        with pytest.raises(ValueError, match="group_ids must be integers"):
            inputs([1.0, 2.0], [0.0, 1.0])

    def test_rewards_of_the_wrong_rank(self):
        with pytest.raises(ValueError, match=r"shape \[n\] or \[n, m\]"):
            AdvantageInputs(rewards=torch.ones(1, 1, 1))

    def test_an_empty_batch(self):
        with pytest.raises(ValueError, match="grpo expects at least one sample, found an empty batch"):
            estimate("grpo", AdvantageInputs(rewards=torch.zeros(0), group_ids=torch.zeros(0, dtype=torch.int64)))

    def test_a_mask_without_a_single_trained_position(self):
        mask = torch.zeros(2, 3)
        with pytest.raises(ValueError, match="`mask` has no position that is trained in any of 2 samples"):
            estimate("reinforce_pp", inputs([1.0, 2.0], [0, 0], mask=mask))

    def test_positions_that_disagree(self):
        with pytest.raises(ValueError, match=r"number of positions: `mask` \[3\], `logprobs` \[4\]"):
            inputs([1.0, 2.0], mask=torch.ones(2, 3), logprobs=torch.ones(2, 4))
