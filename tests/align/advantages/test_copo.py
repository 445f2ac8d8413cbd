"""COPO: entropy of answers, both comparisons, the blend of their losses."""

import math
import statistics

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.objectives import clipped_surrogate, copo_loss

REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
IDS = [0, 0, 0, 0, 1, 1, 1, 1]
ANSWERS = ["a", "a", "b", "c", "x", "x", "x", "x"]  # group 0: H = 1.5 bits; group 1: unanimous
LOW = 1 / (1 + math.exp(5))  # sigmoid(5 (0 - 1)) = .0067
HIGH = 1 / (1 + math.exp(-2.5))  # sigmoid(5 (1.5 - 1)) = .924


def run(rewards=REWARDS, ids=IDS, answers=ANSWERS, correct=None, **options):
    inputs = AdvantageInputs(
        rewards=torch.tensor(rewards), group_ids=torch.tensor(ids), answers=answers, correct=correct
    )
    return estimate("copo_consistency", inputs, **options)


def test_the_local_advantage_is_grpo():
    inputs = AdvantageInputs(rewards=torch.tensor(REWARDS), group_ids=torch.tensor(IDS))
    assert_close(run().advantages, estimate("grpo", inputs, eps=1e-6).advantages)


def test_entropy_in_bits():
    """1/2 a, 1/4 b, 1/4 c: 1/2 + 1/2 + 1/2. One answer: 0. Four answers: 2."""
    entropy = run().aux["answer_entropy"]
    assert_close(entropy, torch.tensor([1.5] * 4 + [0.0] * 4), rtol=1e-6, atol=1e-6)
    assert entropy[4] == 0
    assert run(answers=["a", "b", "c", "d", *"xxxx"]).aux["answer_entropy"][0].item() == pytest.approx(2, rel=1e-6)


def test_equal_answers_of_other_groups_and_of_other_types_are_other_answers():
    entropy = run(answers=["a", ("a",), 1, None, *"aaaa"]).aux["answer_entropy"]
    assert entropy[0].item() == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize(("none_answers", "expected"), [("each", 1.5), ("one", 1.0)])
def test_missing_answers(none_answers, expected):
    """a a None None: each is its own answer, or both are one."""
    found = run(answers=["a", "a", None, None, *"xxxx"], none_answers=none_answers).aux["answer_entropy"]
    assert found[0].item() == pytest.approx(expected, rel=1e-6)


def test_between_groups_by_hand():
    """Means 1/2 and 3/4: unbiased std .25 / sqrt 2 = .17678, +-.125 / .17678 = +-.70711."""
    found = run().aux["global_advantages"]
    assert_close(found, torch.tensor([-0.7071] * 4 + [0.7071] * 4), rtol=1e-4, atol=0)


def test_the_coefficient_by_hand():
    """H = 1.5, G = 4: lam = .75 / 2 = .375, 1 - .5625 = .4375; R = .21875 and .75. Three groups tell R apart."""
    result = run([*REWARDS, 0.0, 0.0], [*IDS, 2, 2], [*ANSWERS, "u", "u"], reward_coef=True)
    scores = [0.5 * 0.4375, 0.75, 0.0]
    mean, std = statistics.fmean(scores), statistics.stdev(scores) + 1e-6
    expected = torch.tensor([(scores[number] - mean) / std for number in [*IDS, 2, 2]])
    assert_close(result.aux["global_advantages"], expected, rtol=1e-5, atol=1e-6)


def test_all_different_answers_have_coefficient_one_over_g():
    """Group 0 all different (R = m / 4), group 1 unanimous (R = m): with m = 1/2 both, R = 1/8 and 1/2."""
    rewards = [1.0, 0.0, 0.0, 1.0] * 2
    result = run([*rewards, 0.0, 0.0], [*IDS, 2, 2], [*"abcd", *"xxxx", "u", "u"], reward_coef=True)
    scores = [0.125, 0.5, 0.0]
    mean, std = statistics.fmean(scores), statistics.stdev(scores) + 1e-6
    assert result.aux["global_advantages"][0].item() == pytest.approx((scores[0] - mean) / std, rel=1e-5)


ONE, NONE = torch.ones(8), torch.zeros(8)
SOFT = torch.tensor([HIGH] * 4 + [LOW] * 4)
RIGHT = torch.tensor(REWARDS)


@pytest.mark.parametrize(
    ("mode", "local", "shrink"),
    [
        ("soft-with-zero", SOFT * RIGHT, 1.0),
        ("only-soft", SOFT, 1.0),
        ("only-soft-with-coef", SOFT, 0.1),
        ("only-zero", RIGHT, 1.0),
        ("soft-with-forced", SOFT, 1.0),  # no local advantage is 0 here
        ("only-forced", ONE, 1.0),
        ("only-global", NONE, 1.0),
        ("no-global", ONE, 1.0),
    ],
)
def test_weights_of_every_mode(mode, local, shrink):
    aux = run(mode=mode).aux
    assert_close(aux["local_weight"], local, rtol=1e-5, atol=1e-6)
    assert_close(aux["global_weight"], shrink * (1 - local), rtol=1e-5, atol=1e-6)


def test_forced_modes_leave_equal_groups_to_the_comparison_between_groups():
    aux = run([1.0, 1.0, 1.0, 1.0, *REWARDS[4:]], mode="only-forced").aux
    assert aux["local_weight"].tolist() == [0.0] * 4 + [1.0] * 4


def test_what_failed_means():
    """Rewards of -1 and 1: r != 0 never says failed; correctness does."""
    rewards = [1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0]
    by_correct = run(rewards, mode="only-zero").aux["local_weight"]
    assert_close(by_correct, RIGHT)
    assert_close(run(rewards, mode="only-zero", zero_test="reward").aux["local_weight"], ONE)
    told = run(rewards, mode="only-zero", correct=torch.tensor([False] * 7 + [True])).aux["local_weight"]
    assert told.tolist() == [0.0] * 7 + [1.0]


class TestDegenerate:
    def test_one_group_has_nothing_to_be_compared_with(self):
        aux = run(REWARDS[:4], IDS[:4], ANSWERS[:4]).aux
        assert (aux["global_advantages"] == 0).all()
        assert (aux["local_weight"] == 1).all()

    def test_groups_equally_good(self):
        aux = run([1.0, 0.0, 0.0, 1.0] * 2).aux
        assert (aux["global_advantages"] == 0).all()

    def test_a_group_of_one(self):
        result = run([1.0, 1.0, 0.0], [0, 1, 1], ["a", "b", "c"], reward_coef=True)
        assert result.advantages[0] == 0
        assert result.aux["answer_entropy"][0] == 0
        assert result.aux["global_advantages"].isfinite().all()

    def test_an_unscored_sample_leaves_the_answers_too(self):
        found = run([*REWARDS[:3], math.nan, *REWARDS[4:]]).aux
        without = run(REWARDS[:3] + REWARDS[4:], IDS[:3] + IDS[4:], ANSWERS[:3] + ANSWERS[4:]).aux
        kept = torch.tensor([0, 1, 2, 4, 5, 6, 7])
        for name, values in without.items():
            assert torch.equal(found[name][kept], values)
            assert found[name][3] == 0


class TestLoss:
    OLD = torch.zeros(2, 3)
    NEW = torch.tensor([[0.5, -0.5, 0.1], [0.2, 0.4, -0.3]])
    LOCAL, BETWEEN = torch.tensor([1.0, -0.5]), torch.tensor([-0.7, 0.7])

    def test_by_hand(self):
        """Ratio 1 and 2, range 0.2: local A = 1: -1 and -1.2; global A = -0.5: 0.5 and 1. Weight 1/4."""
        loss = copo_loss(
            torch.tensor([[0.0, math.log(2)]]), torch.zeros(1, 2), torch.tensor([1.0]), torch.tensor([-0.5]),
            torch.tensor([0.25]),
        )  # fmt: skip
        assert_close(loss, torch.tensor([[0.75 * 0.5 - 0.25, 0.75 * 1.0 - 0.25 * 1.2]]))

    @pytest.mark.parametrize(("weight", "advantages"), [(0.0, BETWEEN), (1.0, LOCAL)])
    def test_the_ends_are_plain_surrogates(self, weight, advantages):
        loss = copo_loss(self.NEW, self.OLD, self.LOCAL, self.BETWEEN, torch.full((2,), weight))
        assert_close(loss, clipped_surrogate(self.NEW, self.OLD, advantages, 0.2, 0.2, 3.0))

    def test_a_smaller_global_term(self):
        halves = torch.full((2,), 0.5)
        loss = copo_loss(self.NEW, self.OLD, 0 * self.LOCAL, self.BETWEEN, halves, global_weight=0.1 * halves)
        assert_close(loss, 0.05 * clipped_surrogate(self.NEW, self.OLD, self.BETWEEN, 0.2, 0.2, 3.0))

    def test_gradient_by_finite_differences(self):
        new = self.NEW.double().requires_grad_()
        old, local, between = self.OLD.double(), self.LOCAL.double(), self.BETWEEN.double()
        weight = torch.tensor([0.3, 0.9])
        assert torch.autograd.gradcheck(lambda lp: copo_loss(lp, old, local, between, weight), (new,))
