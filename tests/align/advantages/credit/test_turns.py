"""IGPO, MARS and GiGPO: estimators over turns and over the states in which they were taken."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

tensor = torch.tensor
NAN = math.nan


class TestIgpo:
    MASK = tensor([[1, 1, 1], [1, 1, 0]])
    TURNS = tensor([[0, 1, 2], [0, 1, -1]])

    def inputs(self, confidence=((-2, -1.2, -0.6), (-2, -2.2, NAN)), rewards=(1.0, 0.0), **fields):
        return AdvantageInputs(
            rewards=tensor(rewards),
            group_ids=tensor([0, 0]),
            mask=self.MASK,
            turn_id=self.TURNS,
            confidence=None if confidence is None else tensor(confidence).float(),
            **fields,
        )

    EXPECTED = tensor([[2.3887, 1.4629, 1.0], [-2.3887, -1.0, 0.0]])

    def test_by_hand(self):
        """Gains .8 .6 | -.2: mean .4, population std .43205: .9258 .4629 | -1.3887. Outcomes 1 and -1.

        Returns .9258 + .4629 + 1, .4629 + 1, 1 and -1.3887 - 1, -1.
        """
        result = estimate("igpo", self.inputs())
        assert_close(result.advantages, self.EXPECTED, atol=1e-4, rtol=0)
        assert result.stats["unknown_gains"] == 0

    def test_gains_may_stand_on_the_turns_instead(self):
        placed = self.inputs(confidence=None, token_rewards=tensor([[0.8, 0.6, 50.0], [-0.2, 50.0, NAN]]))
        assert_close(estimate("igpo", placed).advantages, self.EXPECTED, atol=1e-4, rtol=0)

    def test_a_constant_of_the_confidence_does_not_matter_and_equal_outcomes_still_teach(self):
        shifted = self.inputs(confidence=[[1, 1.8, 2.4], [-5, -5.2, 0]])
        assert_close(estimate("igpo", shifted).advantages, self.EXPECTED, atol=1e-4, rtol=0)
        failed = estimate("igpo", self.inputs(rewards=(0.0, 0.0))).advantages
        assert_close(failed, tensor([[1.3887, 0.4629, 0.0], [-1.3887, 0.0, 0.0]]), atol=1e-4, rtol=0)

    def test_first_version_by_hand(self):
        """One pool .8 .6 1 | -.2 0: mean .44, variance (.1296 + .0256 + .3136 + .4096 + .1936) / 5 = .2144."""
        std = math.sqrt(0.2144)
        z = [[0.36 / std, 0.16 / std, 0.56 / std], [-0.64 / std, -0.44 / std]]
        expected = tensor([[sum(z[0]), sum(z[0][1:]), z[0][2]], [sum(z[1]), z[1][1], 0.0]])
        assert_close(estimate("igpo", self.inputs(), pools="joint").advantages, expected)
        logs = self.inputs(confidence=[[math.log(x) for x in row] for row in ((0.1, 0.9, 1.5), (0.3, 0.1, 1))])
        assert_close(estimate("igpo", logs, form="prob").advantages, self.EXPECTED, atol=1e-4, rtol=0)

    def test_released_form_by_hand(self):
        """Raw .8 .6 1 | -.2 0 returns 2.4 1.6 1 | -.2 0 0, minus the mean at each index: 1.1, .8, .5."""
        found = estimate("igpo", self.inputs(), release=True).advantages
        assert_close(found, tensor([[1.3, 0.8, 0.5], [-1.3, -0.8, 0.0]]))

    def test_an_unknown_answer_and_single_turns(self):
        """No confidence in row 1: its gain counts 0 and leaves the pool .8 .6. One turn each: GRPO, population form."""
        unknown = estimate("igpo", self.inputs(confidence=[[-2, -1.2, -0.6], [NAN, NAN, NAN]]))
        assert unknown.stats["unknown_gains"] == 1
        assert_close(unknown.advantages, tensor([[1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]), atol=1e-6, rtol=0)
        single = AdvantageInputs(
            rewards=tensor([1.0, 0.0, 0.5]),
            group_ids=tensor([0, 0, 0]),
            mask=torch.ones(3, 2),
            turn_end=torch.zeros(3, 2, dtype=torch.bool),
            confidence=torch.zeros(3, 1),
        )
        plain = estimate("grpo", single, unbiased=False, eps=1e-8).advantages
        assert_close(estimate("igpo", single).advantages, plain.unsqueeze(1).expand(3, 2))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`confidence` has 2 columns, but a sample has 3 turns"):
            estimate("igpo", self.inputs(confidence=[[0, 1], [0, 1]]))
        with pytest.raises(ValueError, match="igpo needs `confidence` or `token_rewards`"):
            estimate("igpo", self.inputs(confidence=None))


class TestMars:
    HAND = AdvantageInputs(
        rewards=tensor([0.0, 0.0, 0.0]),
        group_ids=tensor([0, 0, 0]),
        mask=tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1]]),
        turn_id=tensor([[0, 1, -1], [0, 1, -1], [0, 1, 2]]),
        token_rewards=tensor([[0.1, 1, NAN], [0.1, -1, 9], [0, 1, 0.1]]),
    )

    def test_by_hand(self):
        """R 1.1 1 | -.9 -1 | 1.1 1.1 .1: mean 2.5 / 7 = .35714."""
        expected = tensor([[0.742857, 0.642857, 0.0], [-1.257143, -1.357143, 0.0], [0.742857, 0.742857, -0.257143]])
        assert_close(estimate("mars_turn", self.HAND).advantages, expected)

    def test_each_seat_has_its_own_mean(self):
        """Player 1 plays rows 0 and 2: (1.1 + 1 + 1.1 + 1.1 + .1) / 5 = .88. Player 2 alone: mean -.95."""
        given = AdvantageInputs(
            rewards=self.HAND.rewards,
            mask=self.HAND.mask,
            turn_id=self.HAND.turn_id,
            token_rewards=self.HAND.token_rewards,
            player=tensor([1, 2, 1]),
        )
        expected = tensor([[0.22, 0.12, 0.0], [0.05, -0.05, 0.0], [0.22, 0.22, -0.78]])
        assert_close(estimate("mars_turn", given).advantages, expected)
        assert_close(estimate("mars_turn", given).advantages.sum(), tensor(0.0), atol=1e-6, rtol=0)

    def test_one_turn_and_one_role_is_dr_grpo(self):
        given = AdvantageInputs(
            rewards=tensor([1.0, 2.0, 6.0]),
            group_ids=tensor([4, 4, 4]),
            mask=torch.ones(3, 2),
            turn_id=torch.zeros(3, 2).long(),
        )
        plain = estimate("dr_grpo", given).advantages
        assert_close(estimate("mars_turn", given).advantages, plain.unsqueeze(1).expand(3, 2))

    def test_a_constant_on_every_last_turn_does_not_matter(self):
        rewards = self.HAND.token_rewards.clone()
        rewards[[0, 1, 2], [1, 1, 2]] += 5
        given = AdvantageInputs(
            rewards=self.HAND.rewards,
            group_ids=self.HAND.group_ids,
            mask=self.HAND.mask,
            turn_id=self.HAND.turn_id,
            token_rewards=rewards,
        )
        assert_close(estimate("mars_turn", given).advantages, estimate("mars_turn", self.HAND).advantages)

    def test_released_form_step_by_step(self):
        """The five steps in plain floats."""
        per_turn = [[0.1, 1.0], [0.1, -1.0], [0.0, 1.0, 0.1]]
        flat = [r for row in per_turn for r in row]
        centred = [[r - statistics.fmean(flat) for r in row] for row in per_turn]  # (1) by turn ends of the player
        every = [r for row in centred for r in row]  # here every response token ends a turn
        mean, variance = statistics.fmean(every), statistics.variance(every)
        white = [[(r - mean) / math.sqrt(variance + 1e-8) for r in row] for row in centred]  # (2)
        sums = [[sum(row[k:]) for k in range(len(row))] for row in white]  # (3)
        padded = [row + [0.0] * (3 - len(row)) for row in sums]
        distinct = {round(r * 1e5) / 1e5: r for row in padded for r in row}.values()
        less = [[r - statistics.fmean(distinct) for r in row] for row in sums]  # (4)
        every = [r for row in less for r in row]
        mean, variance = statistics.fmean(every), statistics.variance(every)
        expected = [[(r - mean) / math.sqrt(variance + 1e-8) for r in row] + [0.0] * (3 - len(row)) for row in less]
        assert_close(estimate("mars_turn", self.HAND, release=True).advantages, tensor(expected), rtol=1e-5, atol=1e-6)


class TestGigpo:
    def inputs(self, rewards=(1.0, 0.0), **fields):
        return AdvantageInputs(
            rewards=tensor(rewards),
            group_ids=tensor([0, 0]),
            mask=tensor([[1, 1, 0], [1, 1, 1]]),
            state_key=tensor([[8, 9, 0], [8, 7, 9]]),
            **fields,
        )

    def test_by_hand(self):
        """gamma 1/2. Returns: row 0 .5 1, row 1 0 0 0. States 8: .5 and 0; 9: 1 and 0; 7 alone: 0.

        Two values a > b have z = +-1/sqrt(2) each; the episodes too.
        """
        z = 1 / math.sqrt(2)
        found = estimate("gigpo", self.inputs(), gamma=0.5, eps=0.0)
        assert_close(found.advantages, tensor([[2 * z, 2 * z, 0.0], [-2 * z, -z, -2 * z]]))
        assert found.stats["repeated_states"] == pytest.approx(4 / 5)
        plain = estimate("gigpo", self.inputs(), gamma=0.5, scale="none", omega=2.0)
        assert_close(plain.advantages, tensor([[1.0, 1.5, 0.0], [-1.0, -0.5, -1.5]]))

    def test_without_the_second_comparison_it_is_grpo(self):
        grpo = estimate("grpo", self.inputs(), eps=1e-6).advantages.unsqueeze(1)
        assert_close(estimate("gigpo", self.inputs(), omega=0.0).advantages, grpo * tensor([[1.0, 1, 0], [1, 1, 1]]))
        alone = AdvantageInputs(
            rewards=tensor([1.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 2),
            state_key=tensor([[1, 2, 5], [3, 4, 5]]),  # equal states after the last step are no step
        )
        assert_close(estimate("gigpo", alone).advantages, grpo.expand(2, 2))

    def test_states_of_two_prompts_are_not_compared(self):
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0, 3.0, 5.0]),
            group_ids=tensor([0, 0, 1, 1]),
            mask=torch.ones(4, 1),
            state_key=torch.zeros(4, 1).long(),
        )
        assert_close(estimate("gigpo", given, scale="none").advantages.flatten(), tensor([1.0, -1.0, -2.0, 2.0]))

    def test_step_rewards_and_turns(self):
        """Two turns of two tokens, rewards 1 and 2 per turn against 0 and 0: returns 2, 2 at gamma .5 against 0, 0."""
        given = AdvantageInputs(
            rewards=tensor([3.0, 0.0]),
            group_ids=tensor([0, 0]),
            mask=torch.ones(2, 4),
            turn_id=tensor([[0, 0, 1, 1]] * 2),
            token_rewards=tensor([[0.5, 0.5, 0, 2], [0, 0, 0, 0]]),
            state_key=tensor([[1, 2], [1, 2]]),
        )
        found = estimate("gigpo", given, scale="none", gamma=0.5).advantages
        assert_close(found, tensor([[2.5, 2.5, 2.5, 2.5], [-2.5, -2.5, -2.5, -2.5]]))

    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**16))
    def test_against_a_slow_loop(self, seed):
        generator = torch.Generator().manual_seed(seed)
        n, width = 6, 4
        states = torch.randint(0, 2, (n, width), generator=generator)
        lengths = torch.randint(1, width + 1, (n,), generator=generator).tolist()
        rewards = (torch.randint(0, 3, (n,), generator=generator) / 2).tolist()
        ids = torch.randint(0, 2, (n,), generator=generator).tolist()
        given = AdvantageInputs(
            rewards=tensor(rewards),
            group_ids=tensor(ids),
            mask=(torch.arange(width) < tensor(lengths).unsqueeze(1)).long(),
            state_key=states,
        )
        found = estimate("gigpo", given, gamma=0.5, eps=0.25).advantages

        def z(value, pool):
            return 0.0 if len(set(pool)) < 2 else (value - statistics.fmean(pool)) / (statistics.stdev(pool) + 0.25)

        for i in range(n):
            members = [j for j in range(n) if ids[j] == ids[i]]
            if len(members) < 2:
                assert (found[i] == 0).all()
                continue
            for s in range(lengths[i]):
                pool = [
                    0.5 ** (lengths[j] - 1 - u) * rewards[j]
                    for j in members
                    for u in range(lengths[j])
                    if states[j, u] == states[i, s]
                ]
                own = 0.5 ** (lengths[i] - 1 - s) * rewards[i]
                expected = z(rewards[i], [rewards[j] for j in members]) + z(own, pool)
                assert float(found[i, s]) == pytest.approx(expected, abs=1e-6)

    def test_bad_input(self):
        given = AdvantageInputs(
            rewards=tensor([1.0, 0.0]), group_ids=tensor([0, 0]), mask=torch.ones(2, 4), state_key=tensor([[1, 2]] * 2)
        )
        with pytest.raises(ValueError, match="`state_key` has 2 columns for 4 positions"):
            estimate("gigpo", given)
