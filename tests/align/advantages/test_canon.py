"""CANON: the worked example, its relation to Dr. GRPO, favoured halves and schedules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.canon import intra_weight

SIX = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]  # metric ascending: low half 2/3, high half 1/3


def run(rewards, metric=None, ids=None, fields=None, **options):
    ids = [0] * len(rewards) if ids is None else ids
    metric = torch.arange(float(len(rewards))) if metric is None else torch.tensor(metric)
    inputs = AdvantageInputs(
        rewards=torch.tensor(rewards), group_ids=torch.tensor(ids), metric=metric, **(fields or {})
    )
    return estimate("canon", inputs, **options)


def test_comparisons_by_hand():
    inter = torch.tensor([2.0, -1.0, 2.0, 1.0, -2.0, -2.0]) / 3
    intra = torch.tensor([1.0, -2.0, 1.0, 2.0, -1.0, -1.0]) / 3
    assert_close(run(SIX, mu=1.0).advantages, inter)
    assert_close(run(SIX, mu=0.0).advantages, intra)
    assert_close(run(SIX, mu=0.25, max_length=10).advantages, (inter / 4 + 3 * intra / 4) / 10)


def test_the_low_half_of_an_odd_group_is_the_smaller():
    """Three samples: low half [4], high half [1, 0]; inter 4 - 1/2, 1 - 4, 0 - 4."""
    assert_close(run([4.0, 1.0, 0.0], mu=1.0).advantages, torch.tensor([3.5, -3.0, -4.0]))


@pytest.mark.parametrize(
    ("prefer", "expected"),
    # alpha 1/2, beta 0.1. High favoured: low = r/2 - m_hi - .1, high = r - m_lo/2 + .1; low favoured: the other way.
    [("high", [0.5 - 1 / 3 - 0.1, 1 - 1 / 3 + 0.1]), ("low", [1 - 1 / 6 - 0.1, 0.5 - 2 / 3 + 0.1])],
)
def test_a_favoured_half_by_hand(prefer, expected):
    found = run(SIX, mu=1.0, alpha=0.5, beta=0.1, prefer=prefer).advantages
    assert_close(found[torch.tensor([0, 3])], torch.tensor(expected))


@given(
    rewards=st.lists(st.integers(0, 8), min_size=2, max_size=8).filter(lambda r: len(r) % 2 == 0),
    seed=st.integers(0, 99),
)
def test_even_groups_at_one_half_are_dr_grpo(rewards, seed):
    rewards = torch.tensor(rewards) / 8
    metric = torch.rand(len(rewards), generator=torch.Generator().manual_seed(seed))
    inputs = AdvantageInputs(rewards=rewards, group_ids=torch.zeros(len(rewards)).long(), metric=metric)
    assert_close(estimate("canon", inputs).advantages, estimate("dr_grpo", inputs).advantages)


@given(rewards=st.lists(st.integers(0, 8), min_size=4, max_size=8), seed=st.integers(0, 99))
def test_slow_loop_and_monotone_changes_of_the_metric(rewards, seed):
    rewards = [r / 8 for r in rewards]
    metric = torch.rand(len(rewards), generator=torch.Generator().manual_seed(seed)).tolist()
    order = sorted(range(len(rewards)), key=lambda i: metric[i])
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    means = [sum(rewards[i] for i in half) / len(half) for half in halves]
    expected = [0.0] * len(rewards)
    for number, half in enumerate(halves):
        for i in half:
            expected[i] = 0.3 * (rewards[i] - means[1 - number]) + 0.7 * (rewards[i] - means[number])
    if len(set(rewards)) == 1:
        expected = [0.0] * len(rewards)
    found = run(rewards, metric, mu=0.3).advantages
    assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert torch.equal(run(rewards, [10 * m**3 - 2 for m in metric], mu=0.3).advantages, found)
    if len(rewards) % 2 == 0:
        assert_close(run(rewards, [-m for m in metric], mu=0.3).advantages, found)


def test_within_the_own_half_sums_are_zero():
    found = run(SIX, mu=0.0).advantages
    assert float(found[:3].sum()) == pytest.approx(0, abs=1e-6)
    assert float(found[3:].sum()) == pytest.approx(0, abs=1e-6)


def test_ties_break_by_input_order():
    assert_close(run(SIX, metric=[1.0, 1.0, 1.0, 1.0, 1.0, 2.0], mu=1.0).advantages, run(SIX, mu=1.0).advantages)


def test_a_metric_of_one_number_falls_back_to_dr_grpo_and_says_so():
    result = run(SIX, metric=[0.1] * 6, mu=1.0)
    assert_close(result.advantages, torch.tensor([0.5, -0.5, 0.5, 0.5, -0.5, -0.5]))
    assert result.stats["fallbacks"] == 1


def test_groups_of_two_compare_with_each_other_only():
    assert run([1.0, 0.0], mu=1.0).advantages.tolist() == [1.0, -1.0]
    assert run([1.0, 0.0], mu=0.0).advantages.tolist() == [0.0, 0.0]


class TestSchedules:
    def test_warm_up_and_restarts(self):
        assert intra_weight(0, top=0.6, floor=0.0) == pytest.approx(0.02)
        assert intra_weight(29, top=0.6, floor=0.0) == pytest.approx(0.6)
        assert [intra_weight(t, top=0.6, floor=0.0) for t in (30, 70, 110)] == pytest.approx([0.6] * 3)
        assert intra_weight(50, top=0.6, floor=0.0) == pytest.approx(0.3)
        assert intra_weight(149, top=0.6, floor=0.0) < 0.002
        assert intra_weight(10**6, top=1.0, floor=0.4) == 0.4

    @pytest.mark.parametrize(("schedule", "mu"), [("cosine", 0.98), ("cosine_complement", 1 / 30), ("constant", 0.5)])
    def test_step_zero(self, schedule, mu):
        """The complement's weight within the half is 1 - 1/30 = 0.967."""
        assert run(SIX, fields={"step": 0}, schedule=schedule).stats["canon/mu"] == pytest.approx(mu)

    def test_accuracy(self):
        assert run(SIX, schedule="accuracy").stats["canon/mu"] == pytest.approx(0.5)
        given = {"batch_mean_reward": 0.9}
        assert run(SIX, fields=given, schedule="accuracy").stats["canon/mu"] == pytest.approx(0.9)
        assert run(SIX, fields=given, schedule="accuracy_reversed").stats["canon/mu"] == pytest.approx(0.1)

    def test_a_cosine_needs_the_step(self):
        with pytest.raises(ValueError, match="canon needs `step`"):
            run(SIX, schedule="cosine")

    def test_a_random_split_needs_no_metric_and_repeats(self):
        inputs = AdvantageInputs(rewards=torch.tensor(SIX), group_ids=torch.zeros(6).long(), step=4)
        options = {"split": "random", "mu": 1.0}
        first, again = (estimate("canon", inputs, **options).advantages for _ in range(2))
        assert torch.equal(first, again)
        others = [estimate("canon", inputs, seed=seed, **options).advantages for seed in range(1, 6)]
        assert any(not torch.equal(first, other) for other in others)
