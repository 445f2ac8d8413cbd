"""TEMPO and SALT, and where they are GRPO."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

tensor = torch.tensor
HAND = AdvantageInputs(
    rewards=tensor([1.0, 0.0, 0.0]),
    group_ids=tensor([0, 0, 0]),
    mask=torch.ones(3, 2),
    token_ids=tensor([[5, 1], [5, 2], [6, 1]]),
)


def random_batch(seed, keys=2, n=9, width=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (n, 1), generator=generator)
    return AdvantageInputs(
        rewards=torch.randint(0, 3, (n,), generator=generator) / 2,
        group_ids=torch.randint(0, 2, (n,), generator=generator),
        mask=(torch.arange(width) < lengths).long(),
        token_ids=torch.randint(0, keys, (n, width), generator=generator),
    )


class TestTempo:
    def test_by_hand(self):
        """m = 1/3, s = 1/sqrt(3). V([5]) = 1/2, V([6]) = 0; leaves 1 0 0.

        Row 0: (2/3 + 1/2 - 1/3) / s = 1.4434, (2/3 + 1 - 1/2) / s = 2.0207. Row 1: (-1/3 + 1/6) / s = -.2887,
        (-1/3 - 1/2) / s = -1.4434. Row 2: (-1/3 - 1/3) / s = -1.1547, then no branch: -.5774.
        """
        expected = tensor([[1.4434, 2.0207], [-0.2887, -1.4434], [-1.1547, -0.5774]])
        assert_close(estimate("tempo", HAND).advantages, expected, atol=1e-4, rtol=0)
        assert estimate("tempo", HAND).stats["branching_share"] == pytest.approx(5 / 6)

    def test_without_oneself_by_hand(self):
        """Others' mean: 0, 1/2, 1/2 -> 1, -1/2, -1/2. V([]) without oneself: the same. V([5]) without oneself: 0 and 1.

        Row 0: 1 + (1/2 - 0) = 1.5, 1 + (1 - 0) = 2. Row 1: -.5 + (.5 - .5) = -.5, -.5 + (0 - 1) = -1.5.
        Row 2: -.5 + (0 - .5) = -1, alone behind [6]: -.5.  All times sqrt(3).
        """
        expected = math.sqrt(3) * tensor([[1.5, 2.0], [-0.5, -1.5], [-1.0, -0.5]])
        assert_close(estimate("tempo", HAND, loo=True, eps=0.0).advantages, expected)

    def test_a_tool_s_answer_is_part_of_the_prefix_and_its_luck_is_dropped(self):
        """Rows differ only at the masked position: every trained position is plain GRPO."""
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=tensor([[1, 0, 1]] * 2),
            token_ids=tensor([[4, 1, 4], [4, 2, 4]]),
        )
        result = estimate("tempo", given).advantages
        plain = estimate("grpo", given, eps=1e-6).advantages
        assert_close(result, plain.unsqueeze(1) * tensor([[1.0, 0.0, 1.0]] * 2))

    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**16))
    def test_against_dictionaries_of_tuples(self, seed):
        given = random_batch(seed)
        found = estimate("tempo", given, eps=0.5).advantages
        rows = [row[: int(keep.sum())] for row, keep in zip(given.token_ids.tolist(), given.mask, strict=True)]
        rewards, ids = given.rewards.tolist(), given.group_ids.tolist()
        for i, row in enumerate(rows):
            members = [j for j in range(len(rows)) if ids[j] == ids[i]]
            own = [rewards[j] for j in members]
            if len(set(own)) < 2:
                assert (found[i] == 0).all()
                continue

            def value(prefix, members=members):
                return statistics.fmean(rewards[j] for j in members if rows[j][: len(prefix)] == prefix)

            for t in range(len(row)):
                next_units = {tuple(rows[j][t : t + 1]) for j in members if rows[j][:t] == row[:t]}
                gained = value(row[: t + 1]) - value(row[:t]) if len(next_units) > 1 else 0.0
                expected = (rewards[i] - statistics.fmean(own) + gained) / (statistics.stdev(own) + 0.5)
                assert float(found[i, t]) == pytest.approx(expected, abs=1e-6)

    def test_where_nothing_is_shared_it_is_grpo_but_for_the_first_token(self):
        """Different first tokens branch at the root: one TD bonus (r - m) / s there, GRPO behind it."""
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0, 0.25]),
            group_ids=tensor([0] * 3),
            mask=torch.ones(3, 3),
            token_ids=torch.arange(9).reshape(3, 3),
        )
        plain = estimate("grpo", given, eps=1e-6).advantages
        assert_close(estimate("tempo", given).advantages, plain.unsqueeze(1) * tensor([2.0, 1.0, 1.0]))

    def test_equal_texts_with_different_rewards_are_grpo(self):
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 3),
            token_ids=torch.ones(2, 3).long(),
        )
        plain = estimate("grpo", given, eps=1e-6).advantages
        assert_close(estimate("tempo", given).advantages, plain.unsqueeze(1).expand(2, 3))


class TestSalt:
    STATES = AdvantageInputs(
        rewards=tensor([1.0, 0.0, 0.0]),
        group_ids=tensor([0, 0, 0]),
        mask=torch.ones(3, 2),
        state_key=tensor([[10, 11, 12], [10, 11, 13], [10, 14, 15]]),
        step_key=tensor([[1, 1], [1, 2], [2, 1]]),
    )

    @pytest.mark.parametrize("given", [HAND, STATES], ids=["prefixes", "states"])
    def test_by_hand(self, given):
        """A = 1.1547 -.5774 -.5774; rollouts 0 and 1 share their first step: (1.1547 - .5774) / 2 = .2887."""
        result = estimate("salt", given)
        expected = tensor([[0.2887, 1.1547], [0.2887, -0.5774], [-0.5774, -0.5774]])
        assert_close(result.advantages, expected, atol=1e-4, rtol=0)
        assert result.stats["shared_steps"] == pytest.approx(2 / 6)

    def test_an_edge_is_state_action_and_next_state(self):
        """The same state and action with another outcome of the environment are two edges; so are two prompts."""
        states = tensor([[10, 11, 12], [10, 99, 13], [10, 14, 15]])
        given = AdvantageInputs(
            rewards=self.STATES.rewards,
            group_ids=self.STATES.group_ids,
            mask=self.STATES.mask,
            state_key=states,
            step_key=self.STATES.step_key,
        )
        plain = estimate("grpo", given, eps=1e-6).advantages
        assert_close(estimate("salt", given).advantages, plain.unsqueeze(1).expand(3, 2))

    def test_history_tells_equal_steps_apart(self):
        """Both rollouts take 2 -7-> 3, one from 0, one from 1. h = 0: shared, mean 0. h = 1 or all: apart."""
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 2),
            state_key=tensor([[0, 2, 3], [1, 2, 3]]),
            action_key=tensor([[5, 7], [5, 7]]),
        )
        first, second = estimate("dr_grpo", given).advantages.tolist()
        assert estimate("salt", given, trajectory="dr_grpo").advantages.tolist() == [[first, 0], [second, 0]]
        for history in (1, 2, None):
            found = estimate("salt", given, trajectory="dr_grpo", history=history).advantages
            assert found.tolist() == [[first, first], [second, second]]

    def test_counting_a_loop_twice_or_once(self):
        """Rollout 0 (A = 1/2) takes the step 1 -> 1 twice, rollout 1 (A = -1/2) once: (1/2 + 1/2 - 1/2) / 3, or 0."""
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=tensor([[1, 1], [1, 0]]),
            state_key=tensor([[1, 1, 1], [1, 1, 0]]),
            action_key=tensor([[5, 5], [5, 0]]),
        )
        by_occurrence = estimate("salt", given, trajectory="dr_grpo").advantages
        assert_close(by_occurrence, tensor([[1 / 6, 1 / 6], [1 / 6, 0.0]]))
        assert (estimate("salt", given, trajectory="dr_grpo", counting="trajectory").advantages == 0).all()

    def test_turns_spread_a_step_over_its_tokens(self):
        turned = AdvantageInputs(
            rewards=self.STATES.rewards,
            group_ids=self.STATES.group_ids,
            mask=tensor([[1, 1, 0, 1]] * 3),
            turn_id=tensor([[0, 0, -1, 1]] * 3),
            state_key=self.STATES.state_key,
            action_key=self.STATES.step_key,
        )
        found = estimate("salt", turned).advantages
        plain = estimate("salt", self.STATES).advantages
        assert torch.equal(found, torch.stack([plain[:, 0], plain[:, 0], torch.zeros(3), plain[:, 1]], dim=1))

    def test_sums_are_kept_and_bounds_hold(self):
        """Occurrence counting: sum over steps = sum of length * A, and every step lies between the extremes of A."""
        given = random_batch(3)
        plain, found = estimate("rloo", given).advantages, estimate("salt", given, trajectory="rloo").advantages
        lengths = given.mask.sum(dim=1)
        for number in (0, 1):
            rows = given.group_ids == number
            assert_close(found[rows].sum(), (lengths * plain)[rows].sum(), atol=1e-5, rtol=0)
            assert plain[rows].min() - 1e-6 <= found[rows].min()
            assert found[rows].max() <= plain[rows].max() + 1e-6

    def test_bad_input(self):
        short = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 2),
            state_key=tensor([[1, 2], [1, 3]]),
        )
        with pytest.raises(ValueError, match=r"state after the last step.*2 columns for 2 steps, expected 3"):
            estimate("salt", short)
        no_actions = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 2),
            state_key=tensor([[1, 2, 3]] * 2),
        )
        with pytest.raises(ValueError, match="pass `action_key` with 2 columns"):
            estimate("salt", no_actions)
        with pytest.raises(ValueError, match="salt needs `state_key` or `token_ids` or `step_key`"):
            estimate("salt", AdvantageInputs(rewards=tensor([1.0]), group_ids=tensor([0]), mask=torch.ones(1, 2)))
        turns = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 3),
            turn_id=tensor([[0, 1, 2]] * 2),
            state_key=tensor([[1, 2]] * 2),
        )
        with pytest.raises(ValueError, match="a sample has 3 steps but `state_key` has 2 columns"):
            estimate("gigpo", turns)
