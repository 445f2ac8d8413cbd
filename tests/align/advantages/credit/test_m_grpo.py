"""M-GRPO: alignment of calls, z-scores by kind of agent, inherited rewards."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.credit.lineage import inherited_rewards
from align.advantages.credit.m_grpo import align_calls, main_reward, sub_reward

tensor = torch.tensor
NAN = math.nan


def family(order=range(7)):
    """Two rollouts of the main agent; rollout 40 makes one call, rollout 41 four."""
    order = list(order)
    return AdvantageInputs(
        rewards=tensor([1.0, 0.0, 0.9, 0.1, 0.2, 0.3, 0.4])[order],
        group_ids=tensor([5] * 7)[order],
        agent=tensor([0, 0, 1, 1, 1, 1, 1])[order],
        parent=tensor([40, 41, 40, 41, 41, 41, 41])[order],
        call=tensor([0, 0, 0, 0, 1, 2, 3])[order],
    )


def test_aligned_calls_by_hand():
    """Mean .5875, squared deviations .09766 .09766 .05641 .15016, population std .31697."""
    given = AdvantageInputs(rewards=tensor([0.9, 0.9, 0.35, 0.2]), group_ids=tensor([0] * 4))
    assert_close(estimate("m_grpo", given).advantages, tensor([0.986, 0.986, -0.749, -1.223]), atol=1e-3, rtol=0)


def test_duplicates_and_drops_by_hand():
    """d = 2: the one call counts twice, of the four two are drawn. Aligned .9 .9 x y; main agents +-1."""
    result = estimate("m_grpo", family(), calls=2)
    copies = result.aux["copies"].tolist()
    assert copies[:3] == [1, 1, 2]
    assert sorted(copies[3:]) == [0, 0, 1, 1]
    assert result.advantages[:2].tolist() == pytest.approx([1.0, -1.0])
    rewards = [0.9, 0.9, *(reward for reward, count in zip([0.1, 0.2, 0.3, 0.4], copies[3:], strict=True) if count)]
    mean = sum(rewards) / 4
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / 4)
    for row, reward in enumerate([0.9, 0.1, 0.2, 0.3, 0.4], start=2):
        expected = (reward - mean) / std if copies[row] else 0.0
        assert float(result.advantages[row]) == pytest.approx(expected, rel=1e-6)
    assert (result.stats["calls_dropped"], result.stats["calls_duplicated"]) == (2, 1)


def test_the_draw_is_seeded_and_ignores_the_order_of_rows():
    order = [6, 2, 0, 4, 1, 5, 3]
    first = estimate("m_grpo", family(), calls=3, seed=3)
    again = estimate("m_grpo", family(order), calls=3, seed=3)
    assert torch.equal(first.aux["copies"][order], again.aux["copies"])
    assert_close(first.advantages[order], again.advantages)
    draws = {tuple(estimate("m_grpo", family(), calls=3, seed=seed).aux["copies"].tolist()) for seed in range(20)}
    assert len(draws) > 1


def test_main_agents_do_not_see_the_rewards_of_calls():
    changed = family()
    changed.rewards[2:] = tensor([5.0, 6.0, 7.0, 8.0, 9.0])
    assert torch.equal(estimate("m_grpo", changed).advantages[:2], estimate("m_grpo", family()).advantages[:2])


def test_number_of_calls_from_the_coverage():
    """Calls per rollout 1 and 4. All are covered by 4, half of them by 1. One more rollout without a call: 0 1 4."""
    assert estimate("m_grpo", family()).aux["copies"].tolist() == [1, 1, 4, 1, 1, 1, 1]
    assert estimate("m_grpo", family(), coverage=0.5).aux["copies"].sum() == 2 + 1 + 1
    given = family()
    silent = AdvantageInputs(
        **{
            name: torch.cat([getattr(given, name), tensor([value], dtype=getattr(given, name).dtype)])
            for name, value in {"rewards": 0.5, "group_ids": 5, "agent": 0, "parent": 42, "call": 0}.items()
        }
    )
    assert estimate("m_grpo", silent, coverage=0.34).aux["copies"].tolist()[2] == 1
    assert estimate("m_grpo", silent, coverage=0.67).aux["copies"].tolist()[2] == 4


def test_equal_calls_give_exactly_zero_beside_unequal_rollouts():
    given = AdvantageInputs(
        rewards=tensor([1.0, 0.0, 0.1, 0.1, 0.1]), group_ids=tensor([0] * 5), agent=tensor([0, 0, 1, 1, 1])
    )
    assert (estimate("m_grpo", given).advantages[2:] == 0).all()


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), calls=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_rollout_ends_with_exactly_d_calls(sizes, calls, seed):
    units = tensor([unit for unit, size in enumerate(sizes) for _ in range(size)])
    copies = align_calls(units, torch.arange(len(units)), calls, torch.Generator().manual_seed(seed))
    for unit, size in enumerate(sizes):
        own = copies[units == unit]
        assert own.sum() == calls
        assert own.max() - own.min() <= 1  # spread evenly
        assert size != calls or (own == 1).all()  # d_k = d: nothing is drawn


def test_rewards_of_the_paper():
    """Form .1; answer .9; call .1 + .4 + .5 * .6 = .8; nothing without the form."""
    yes, no = tensor([True]), tensor([False])
    assert main_reward(tensor([True, True, False]), tensor([True, False, True])).tolist() == [1.0, 0.1, 0.0]
    assert float(sub_reward(yes, yes, tensor([0.6]))) == pytest.approx(0.8)
    assert float(sub_reward(no, yes, tensor([0.6]))) == 0.0


class TestLineage:
    """Rewrites 0 (children 1, 3, unscored), 1 (own reward 7), 2 (nobody scored)."""

    OWN = tensor([NAN, 7.0, NAN])
    CHILDREN = tensor([1.0, 9.0, 3.0, NAN, NAN])
    PARENTS = tensor([0, 1, 0, 0, 2])

    @pytest.mark.parametrize(("reduce", "first"), [("mean", 2.0), ("max", 3.0), ("sum", 4.0)])
    def test_by_hand(self, reduce, first):
        found = inherited_rewards(self.OWN, self.CHILDREN, self.PARENTS, reduce)
        assert found[:2].tolist() == [first, 7.0]
        assert found[2].isnan()

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`reduce` must be one of mean, max, sum, found 'median'"):
            inherited_rewards(self.OWN, self.CHILDREN, self.PARENTS, "median")
        with pytest.raises(ValueError, match="rows of the 3 parents, found 0 to 3"):
            inherited_rewards(self.OWN, tensor([1.0, 2.0]), tensor([0, 3]))
