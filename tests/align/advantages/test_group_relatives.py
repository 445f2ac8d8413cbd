"""OPO, GPG, pass@k, ReMax, PSR/NSR, NGRPO, leave-one-out GRPO and `negative_only`: by hand and against slow loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

REWARDS = [1.0, 2.0, 6.0, 4.0, 0.0]
IDS = [0, 0, 0, 1, 1]


def advantages(kind, rewards, ids=None, fields=None, **options):
    ids = [0] * len(rewards) if ids is None else ids
    inputs = AdvantageInputs(rewards=torch.tensor(rewards), group_ids=torch.tensor(ids), **(fields or {}))
    return estimate(kind, inputs, **options).advantages


groups = st.lists(st.lists(st.integers(0, 8).map(lambda i: i / 8), min_size=2, max_size=5), min_size=1, max_size=4)


def flat(groups):
    return [r for group in groups for r in group], [number for number, group in enumerate(groups) for _ in group]


class TestOpo:
    def test_by_hand(self):
        """Lengths 1 2 1: baseline (1 + 4 + 6) / 4 = 11/4. Lengths 3 1: (12 + 0) / 4 = 3."""
        lengths = torch.tensor([1, 2, 1, 3, 1])
        expected = torch.tensor([-1.75, -0.75, 3.25, 1.0, -3.0])
        assert_close(advantages("opo", REWARDS, IDS, {"lengths": lengths}), expected)

    def test_lengths_are_counted_from_the_mask_and_holes_do_not_count(self):
        mask = torch.tensor([[1, 0, 0], [1, 0, 1]])
        assert_close(advantages("opo", [3.0, 0.0], None, {"mask": mask}), torch.tensor([2.0, -1.0]))

    @given(groups=groups, seed=st.integers(0, 99))
    def test_slow_loop_and_token_weighted_sum(self, groups, seed):
        rewards, ids = flat(groups)
        lengths = torch.randint(1, 9, (len(rewards),), generator=torch.Generator().manual_seed(seed))
        found = advantages("opo", rewards, ids, {"lengths": lengths})
        expected, place = [], 0
        for group in groups:
            own = lengths[place : place + len(group)].tolist()
            place += len(group)
            baseline = sum(r * length for r, length in zip(group, own, strict=True)) / sum(own)
            expected += [0.0 if len(set(group)) == 1 else r - baseline for r in group]
        assert_close(found, torch.tensor(expected), rtol=1e-6, atol=1e-6)
        assert float((found * lengths).sum()) == pytest.approx(0.0, abs=1e-4)

    def test_equal_lengths_are_dr_grpo(self):
        found = advantages("opo", REWARDS, IDS, {"lengths": torch.full((5,), 7)})
        assert_close(found, advantages("dr_grpo", REWARDS, IDS))


class TestGpg:
    def test_by_hand(self):
        """Four of five rewards are not 0: alpha = 5/4. Group means 3 and 2. f_norm 2 halves."""
        expected = 1.25 * torch.tensor([-2.0, -1.0, 3.0, 2.0, -2.0])
        assert_close(advantages("gpg", REWARDS, IDS), expected)
        assert_close(advantages("gpg", REWARDS, IDS, f_norm=2.0), expected / 2)

    def test_a_batch_of_zeros_is_zero(self):
        assert advantages("gpg", [0.0, 0.0, 0.0]).tolist() == [0.0, 0.0, 0.0]

    def test_it_matters_where_zero_is(self):
        """[0, 1]: alpha 2. [1, 2]: alpha 1."""
        assert advantages("gpg", [0.0, 1.0]).tolist() == [-1.0, 1.0]
        assert advantages("gpg", [1.0, 2.0]).tolist() == [-0.5, 0.5]


class TestPassAtK:
    def test_by_hand(self):
        """Group 0: 6 leads 2 by 4. Group 1: 4 leads 0 by 4."""
        assert advantages("pass_at_k", REWARDS, IDS).tolist() == [0.0, 0.0, 4.0, 4.0, 0.0]

    def test_divided_by_the_deviation(self):
        """[1, 2, 6]: unbiased std sqrt(7)."""
        found = advantages("pass_at_k", [1.0, 2.0, 6.0], standardise=True, eps=0.0)
        assert_close(found, torch.tensor([0.0, 0.0, 4 / math.sqrt(7)]))

    def test_a_shared_first_place_has_no_lead(self):
        assert advantages("pass_at_k", [5.0, 5.0, 1.0]).tolist() == [0.0, 0.0, 0.0]
        assert advantages("pass_at_k", [5.0, 5.0, 1.0], standardise=True, eps=0.0).tolist() == [0.0, 0.0, 0.0]

    @given(groups=groups)
    def test_slow_loop(self, groups):
        rewards, ids = flat(groups)
        expected = []
        for group in groups:
            best, second = sorted(group, reverse=True)[:2]
            expected += [best - second if r == best else 0.0 for r in group]
        assert_close(advantages("pass_at_k", rewards, ids), torch.tensor(expected))


class TestRemax:
    def test_by_hand(self):
        found = advantages("remax", [3.0, 1.0], None, {"greedy_rewards": torch.tensor([2.0, 2.0])})
        assert found.tolist() == [1.0, -1.0]

    def test_needs_no_group(self):
        inputs = AdvantageInputs(rewards=torch.tensor([3.0]), greedy_rewards=torch.tensor([0.5]))
        assert estimate("remax", inputs).advantages.tolist() == [2.5]

    def test_a_prompt_without_greedy_score_gets_nothing(self):
        greedy = torch.tensor([math.nan, 1.0])
        assert advantages("remax", [3.0, 3.0], None, {"greedy_rewards": greedy}).tolist() == [0.0, 2.0]


class TestPsrNsr:
    @pytest.mark.parametrize(
        ("signal", "expected"), [("positive", [1.0, 0.0]), ("negative", [0.0, -1.0]), ("weighted", [0.1, -1.0])]
    )
    def test_by_hand(self, signal, expected):
        assert_close(advantages("psr_nsr", [1.0, 0.0], signal=signal), torch.tensor(expected))

    def test_correctness_can_be_given(self):
        correct = torch.tensor([False, True])
        found = advantages("psr_nsr", [0.75, 0.5], None, {"correct": correct}, signal="negative")
        assert found.tolist() == [-0.25, 0.0]


class TestNgrpo:
    def test_one_success_in_four(self):
        """1 0 0 0 and a virtual 1: M = 2/5, squares 2 * .36 + 3 * .16 = 1.2, S = sqrt(1.2 / 4) = .54772."""
        found = advantages("ngrpo", [1.0, 0.0, 0.0, 0.0], eps=0.0)
        assert_close(found, torch.tensor([1.0954451, -0.7302967, -0.7302967, -0.7302967]))

    def test_three_successes_in_four(self):
        """1 1 1 0 and 1: M = 4/5, squares 4 * .04 + .64 = .8, S = sqrt(.2) -> .4472 x 3 and -1.7889."""
        found = advantages("ngrpo", [1.0, 1.0, 1.0, 0.0], eps=0.0)
        assert_close(found, torch.tensor([0.4472136, 0.4472136, 0.4472136, -1.7888544]))

    @pytest.mark.parametrize("reward", [0.0, 0.3, 0.9])
    @pytest.mark.parametrize("size", [1, 2, 4, 15])
    @pytest.mark.parametrize("virtual", [1, 3])
    def test_failures_alike_teach_whatever_the_reward(self, reward, size, virtual):
        """-sqrt(K (G+K-1) / (G (G+K))); for K = 1 it is -1/sqrt(G+1), at G = 4 -0.44721."""
        found = advantages("ngrpo", [reward] * size, virtual=virtual, eps=0.0)
        expected = -math.sqrt(virtual * (size + virtual - 1) / (size * (size + virtual)))
        assert_close(found, torch.full((size,), expected), rtol=2e-6, atol=0)

    def test_all_at_the_top_is_exactly_zero_even_if_the_top_is_no_float32(self):
        for top in (1.0, 0.9, 0.1):
            assert advantages("ngrpo", [top] * 5, r_max=top).tolist() == [0.0] * 5

    def test_a_top_out_of_reach_punishes_perfect_groups(self):
        assert_close(advantages("ngrpo", [1.0] * 4, r_max=2.0), torch.full((4,), -0.4472136), rtol=1e-5, atol=0)

    def test_a_reward_above_the_top_is_refused(self):
        with pytest.raises(ValueError, match=r"r_max = 1, found a reward of 1.5.*Set `r_max`"):
            advantages("ngrpo", [1.5, 0.0])

    def test_group_of_one(self):
        """Formula: -1/sqrt 2; the released code returns the reward."""
        assert_close(advantages("ngrpo", [0.25]), torch.tensor([-1 / math.sqrt(2)]), rtol=1e-5, atol=0)
        assert advantages("ngrpo", [0.25], singleton="raw").tolist() == [0.25]

    @given(groups=groups, virtual=st.integers(0, 3))
    def test_slow_loop_and_never_a_positive_sum(self, groups, virtual):
        rewards, ids = flat(groups)
        found = advantages("ngrpo", rewards, ids, virtual=virtual)
        expected = []
        for group in groups:
            extended = [*group, *[1.0] * virtual]
            mean, std = statistics.fmean(extended), statistics.stdev(extended)
            expected += [0.0 if len(set(extended)) == 1 else (r - mean) / (std + 1e-6) for r in group]
        assert_close(found, torch.tensor(expected, dtype=torch.float64).float(), rtol=2e-6, atol=1e-6)
        assert all(float(found[torch.tensor(ids) == number].sum()) < 1e-5 for number in set(ids))

    @given(groups=groups)
    def test_without_virtual_samples_it_is_grpo(self, groups):
        rewards, ids = flat(groups)
        assert_close(advantages("ngrpo", rewards, ids, virtual=0), advantages("grpo", rewards, ids, eps=1e-6))


class TestLeaveOneOutStd:
    def test_by_hand(self):
        """[0, 0, 0, 1]: the success sees equal others and is not divided: 1. A failure sees 0 0 1: mean 1/3, unbiased
        std sqrt(1/3) = .57735 -> -.57735."""
        found = advantages("grpo", [0.0, 0.0, 0.0, 1.0], leave_one_out_std=True, eps=0.0)
        assert_close(found, torch.tensor([-0.5773503] * 3 + [1.0]))

    @given(groups=groups)
    def test_slow_loop(self, groups):
        rewards, ids = flat(groups)
        expected = []
        for group in groups:
            for place, reward in enumerate(group):
                others = group[:place] + group[place + 1 :]
                centred = reward - statistics.fmean(others)
                divide = len(set(others)) > 1
                scaled = centred / (statistics.stdev(others) + 1e-6) if divide else centred
                expected.append(0.0 if len(set(group)) == 1 else scaled)
        found = advantages("grpo", rewards, ids, leave_one_out_std=True, eps=1e-6)
        assert_close(found, torch.tensor(expected, dtype=torch.float64).float(), rtol=3e-6, atol=1e-6)

    def test_it_is_about_the_group(self):
        with pytest.raises(
            ValueError, match="`leave_one_out_std` is about the group's deviation, found `scale` 'batch'"
        ):
            advantages("grpo", [0.0, 1.0], leave_one_out_std=True, scale="batch")


class TestNegativeOnly:
    def test_is_grpo_where_that_is_negative(self):
        """[1, 0, 0, 0]: 1.5 and -0.5 -> 0 and -0.5."""
        assert_close(advantages("negative_only", [1.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, -0.5, -0.5, -0.5]))

    def test_any_base(self):
        """RLOO of 1 2 6: -3, -1.5, 4.5."""
        assert advantages("negative_only", [1.0, 2.0, 6.0], base="rloo").tolist() == [-3.0, -1.5, 0.0]

    def test_given_advantages_are_shaped_as_they_are(self):
        given = torch.tensor([[1.0, -2.0], [-3.0, 4.0]])
        found = advantages("negative_only", [5.0, 5.0], None, {"advantages": given})
        assert found.tolist() == [[0.0, -2.0], [-3.0, 0.0]]


class TestBaseOfAShaper:
    INPUTS = AdvantageInputs(rewards=torch.tensor([0.0, 1.0]), group_ids=torch.tensor([0, 0]))

    def test_numbers_of_the_base_are_logged_too(self):
        assert estimate("negative_only", self.INPUTS).stats["frac_reward_zero_std"] == 0.0

    @pytest.mark.parametrize(
        ("kind", "base", "message"),
        [
            ("grpo", "rloo", "grpo is no shaper"),
            ("negative_only", "ddpo_tracked", "ddpo_tracked keeps state of its own"),
            ("negative_only", "negative_only", "belongs to the shaper stage"),
            ("negative_only", "drpo_decoupled", "belongs to the loss stage"),
            ("negative_only", "grpoo", "Did you mean `grpo`"),
        ],
    )
    def test_what_cannot_be_a_base(self, kind, base, message):
        with pytest.raises(ValueError, match=message):
            estimate(kind, self.INPUTS, base=base)

    def test_a_base_is_given_once(self):
        inputs = AdvantageInputs(rewards=torch.zeros(2), group_ids=torch.zeros(2).long(), advantages=torch.zeros(2))
        with pytest.raises(ValueError, match="has `advantages` in its inputs already"):
            estimate("negative_only", inputs, base="grpo")


@pytest.mark.parametrize(("short", "long"), [("hapo", "hapo_token_group"), ("verl", "verl_effective_rank"),
    ("drpo", "drpo_decoupled"), ("copo", "copo_consistency"), ("aspo", "aspo_tool")])  # fmt: skip
def test_names_that_several_papers_share_are_refused_with_ours(short, long):
    with pytest.raises(ValueError, match=f"no advantage estimator '{short}'. Did you mean `{long}`"):
        estimate(short, TestBaseOfAShaper.INPUTS)
