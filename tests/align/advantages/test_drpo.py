"""DRPO: weights, the objective, and that both forms have one gradient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.drpo_decoupled import drpo_weights
from align.objectives import drpo_objective, drpo_penalty, mean_log_probs, weighted_likelihood


def weights(scores, lengths, correct, ids, max_length=1000, tau=10.0, lam=0.1):
    return drpo_weights(
        torch.tensor(scores), torch.tensor(lengths), torch.tensor(correct), torch.tensor(ids),
        max_length=max_length, tau=tau, lam=lam,
    )  # fmt: skip


class TestWeights:
    def test_short_correct_samples_weigh_more(self):
        """L = 100 and 200, C = 1000, lam = .1: exp(1) : 1 = .7311 : .2689."""
        found = weights([0.0, 0.0, 0.0], [100, 200, 50], [True, True, False], [0, 0, 0]).positive
        assert_close(found, torch.tensor([0.73105858, 0.26894142, 0.0], dtype=torch.float64))

    @pytest.mark.parametrize(("tau", "expected"), [(10.0, (0.5125, 0.4875)), (1.0, (0.6225, 0.3775))])
    def test_likely_wrong_samples_weigh_more(self, tau, expected):
        found = weights([-0.5, -1.0, 0.0], [9, 9, 9], [False, False, True], [0, 0, 0], tau=tau).negative
        assert found.tolist() == pytest.approx([*expected, 0.0], abs=1e-4)

    def test_a_constant_on_all_scores_and_a_huge_lam(self):
        args = ([5, 7, 9, 20], [True, True, False, False], [0, 0, 0, 0])
        one, other = weights([-0.5, -1.0, -2.0, 0.0], *args), weights([6.5, 6.0, 5.0, 7.0], *args)
        assert_close(one.negative, other.negative)
        uniform = weights([0.0] * 4, *args, lam=1e9).positive
        assert_close(uniform, torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64))

    def test_groups_without_both_kinds_take_no_part_but_count(self):
        found = weights([0.0] * 5, [3] * 5, [True, True, False, True, False], [0, 0, 1, 2, 2])
        assert (found.groups, found.all_groups) == (1, 3)
        assert found.positive.tolist() == [0, 0, 0, 1, 0]
        assert found.negative.tolist() == [0, 0, 0, 0, 1]

    def test_an_empty_response_is_nobody(self):
        found = weights([0.0] * 3, [0, 4, 4], [True, True, False], [0, 0, 0])
        assert found.positive.tolist() == [0, 1, 0]


def batch(seed, correct=None, ids=(0, 0, 0, 1, 1, 1, 1), **fields):
    generator = torch.Generator().manual_seed(seed)
    n = len(ids)
    mask = torch.arange(8) < torch.randint(1, 9, (n, 1), generator=generator)
    logprobs = -torch.rand(n, 8, generator=generator, dtype=torch.float64)
    correct = torch.tensor([True, False, True, False, False, True, True]) if correct is None else correct
    return AdvantageInputs(
        rewards=correct.double(), group_ids=torch.tensor(ids), mask=mask, logprobs=logprobs, **fields
    )


class TestEstimator:
    @given(seed=st.integers(0, 99))
    def test_slow_loop(self, seed):
        inputs = batch(seed)
        lengths = inputs.mask.sum(1).tolist()
        means = [float(inputs.logprobs[i][inputs.mask[i]].mean()) for i in range(7)]
        expected = [0.0] * 7
        for group in ([0, 1, 2], [3, 4, 5, 6]):
            good = [i for i in group if inputs.rewards[i] == 1]
            bad = [i for i in group if inputs.rewards[i] != 1]
            prefer = {i: math.exp((1 - lengths[i] / 40) / 0.1) for i in good}
            likely = {j: math.exp(means[j] / 10) for j in bad}
            for i in good:
                expected[i] = prefer[i] / sum(prefer.values()) / 2
            for j in bad:
                expected[j] = -likely[j] / sum(likely.values()) / 2
        found = estimate("drpo_decoupled", inputs, max_length=40).advantages
        assert_close(found, torch.tensor(expected), rtol=2e-6, atol=1e-7)

    @given(seed=st.integers(0, 99))
    def test_a_correct_sample_is_never_pushed_down_and_groups_balance(self, seed):
        inputs = batch(seed)
        found = estimate("drpo_decoupled", inputs).advantages
        assert (found[inputs.rewards == 1] >= 0).all()
        for number in (0, 1):
            own = found[inputs.group_ids == number]
            assert float(own.clamp(min=0).sum()) == pytest.approx(0.5, rel=1e-6)
            assert float(own.clamp(max=0).sum()) == pytest.approx(-0.5, rel=1e-6)

    def test_the_padded_width_is_the_released_constant(self):
        inputs = batch(3)
        released = estimate("drpo_decoupled", inputs).advantages
        assert_close(released, estimate("drpo_decoupled", inputs, max_length=8).advantages)

    def test_correctness_can_be_given(self):
        correct = torch.tensor([True, False, True, False, False, True, True])
        given_ = batch(1, correct)
        other = AdvantageInputs(
            rewards=torch.full((7,), 0.3), group_ids=given_.group_ids, mask=given_.mask,
            logprobs=given_.logprobs, correct=correct,
        )  # fmt: skip
        assert torch.equal(estimate("drpo_decoupled", given_).advantages, estimate("drpo_decoupled", other).advantages)


class TestObjective:
    def test_by_hand(self):
        """omega 1 on s = -1; wrong -2 and -3 at tau 1: log mean exp = log((e^-2 + e^-3) / 2) = -2.37989, J = 1.38."""
        scores = torch.tensor([-1.0, -2.0, -3.0])
        loss = drpo_objective(
            scores, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([False, True, True]), torch.zeros(3).long(), tau=1.0
        )
        assert loss.item() == pytest.approx(-1.37989, abs=1e-5)

    @given(seed=st.integers(0, 99), tau=st.sampled_from([0.5, 10.0]))
    def test_both_forms_have_one_gradient(self, seed, tau):
        inputs = batch(seed)
        result = estimate("drpo_decoupled", inputs, tau=tau)
        gradients = []
        for form in ("objective", "weights"):
            live = inputs.logprobs.clone().requires_grad_()
            scores = mean_log_probs(live, inputs.mask)
            if form == "objective":
                loss = drpo_objective(
                    scores, result.aux["positive_weight"], inputs.rewards != 1, inputs.group_ids, tau=tau
                )
            else:
                loss = weighted_likelihood(scores, result.advantages)
            loss.backward()
            gradients.append(live.grad)
        assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)

    def test_gradient_by_finite_differences(self):
        positive = torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64)
        wrong = torch.tensor([False, False, True, True])
        scores = torch.tensor([-0.5, -1.0, -0.2, -2.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda s: drpo_objective(s, positive, wrong, torch.zeros(4).long(), tau=1.0), (scores,)
        )

    def test_without_a_mixed_group_it_is_zero_with_a_graph(self):
        scores = torch.tensor([-0.5, -1.0], requires_grad=True)
        loss = drpo_objective(scores, torch.zeros(2), torch.tensor([False, False]), torch.tensor([0, 1]))
        assert loss.item() == 0
        loss.backward()
        assert scores.grad.tolist() == [0.0, 0.0]

    def test_processes_share_the_number_of_groups(self):
        """Weights of the whole update, one group on each of two processes: the mean of W-fold losses is the whole."""
        inputs = batch(4)
        found = estimate("drpo_decoupled", inputs).advantages
        scores = mean_log_probs(inputs.logprobs, inputs.mask)
        parts = [weighted_likelihood(scores[own], found[own], world=2) for own in (slice(0, 3), slice(3, 7))]
        assert_close(sum(parts) / 2, weighted_likelihood(scores, found))


class TestPenalty:
    MASK = torch.tensor([[1, 1, 0]])
    OLD = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)

    def test_by_hand(self):
        """log pi_old - log pi = 0.1 and 0.3, mean 0.2; (0.2 - 0.05) * 10 * 0.2 = 0.3. Its gradient: 1.5 * (-1/2)."""
        new = torch.tensor([[-0.1, -0.3, 9.0]], dtype=torch.float64, requires_grad=True)
        loss = drpo_penalty(new, self.OLD, self.MASK, beta=10.0, delta=0.05)
        loss.backward()
        assert loss.item() == pytest.approx(0.3)
        assert new.grad.tolist() == [pytest.approx([-0.75, -0.75, 0.0])]

    def test_low_variance_form(self):
        """rho - 1 - log rho at log rho = -0.1 and -0.3."""
        new = torch.tensor([[-0.1, -0.3, 9.0]], dtype=torch.float64)
        divergence = ((math.exp(-0.1) - 1 + 0.1) + (math.exp(-0.3) - 1 + 0.3)) / 2
        loss = drpo_penalty(new, self.OLD, self.MASK, beta=10.0, delta=0.0, kind="k3")
        assert loss.item() == pytest.approx(10 * divergence**2)

    def test_inside_the_trust_region_nothing_pulls(self):
        new = torch.full((1, 3), -1e-5, dtype=torch.float64, requires_grad=True)
        drpo_penalty(new, self.OLD, self.MASK).backward()
        assert (new.grad == 0).all()

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="`k1` and `k3`, found 'k2'"):
            drpo_penalty(self.OLD, self.OLD, self.MASK, kind="k2")
