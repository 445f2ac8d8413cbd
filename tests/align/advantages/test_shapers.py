"""UCAS, ASPO and XRPO's novelty: by hand, their identities, other bases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

from .rollouts import interleaved, rollouts

GRPO = {"eps": 1e-6}


def make(rewards, ids=None, **fields):
    ids = torch.zeros(len(rewards)).long() if ids is None else torch.tensor(ids)
    return AdvantageInputs(rewards=torch.tensor(rewards), group_ids=ids, **fields)


class TestUcas:
    MASK = torch.tensor([[1, 1], [1, 0]])
    CERTAINTY = torch.tensor([[1.0, 3.0], [4.0, 99.0]])  # means 2 and 4: z-scores -+1/sqrt 2
    LOGITS = torch.tensor([[0.0, 10.0], [5.0, 99.0]])

    def inputs(self, **fields):
        return make(
            [1.0, 0.0], **{"mask": self.MASK, "self_certainty": self.CERTAINTY, "token_logits": self.LOGITS} | fields
        )

    def test_by_hand(self):
        """GRPO +-.70711. chat -+.70711: W = exp(.25 * .70711) and exp(.35 * .70711). Logits scaled to 0, 1, .5."""
        good = math.sqrt(0.5) * math.exp(0.25 * math.sqrt(0.5))
        bad = -math.sqrt(0.5) * math.exp(0.35 * math.sqrt(0.5))
        result = estimate("ucas", self.inputs())
        assert_close(result.advantages, torch.tensor([[good, good - 0.05], [bad - 0.025, 0.0]]), rtol=1e-5, atol=1e-6)
        assert (result.stats["ucas/logit_min"], result.stats["ucas/logit_max"]) == (0.0, 10.0)

    def test_the_released_sum_turns_the_order_with_the_length(self):
        """Sums 4 and 4: equally certain, W = 1."""
        found = estimate("ucas", self.inputs(), reduction="sum", token=0.0).advantages
        assert_close(found, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]) * math.sqrt(0.5), rtol=1e-5, atol=1e-6)

    def test_a_good_sample_is_never_pushed_below_zero(self):
        found = estimate("ucas", self.inputs(), token=50.0).advantages
        assert found[0].tolist() == [pytest.approx(found[0, 0].item()), 0.0]
        assert found[0, 0] > 0

    def test_strengths_of_zero_are_grpo_on_every_token(self):
        inputs = rollouts(*interleaved(1))
        found = estimate("ucas", inputs, positive=0.0, negative=0.0, token=0.0).advantages
        base = estimate("grpo", inputs, **GRPO).advantages
        assert_close(found, torch.where(inputs.mask, base.unsqueeze(1), 0.0))

    def test_equal_groups_get_a_small_push_down_unless_skipped(self):
        inputs = self.inputs()
        equal = make(
            [0.5, 0.5], mask=inputs.mask, self_certainty=inputs.self_certainty, token_logits=inputs.token_logits
        )
        assert_close(
            estimate("ucas", equal).advantages, torch.tensor([[0.0, -0.05], [-0.025, 0.0]]), rtol=1e-5, atol=1e-6
        )
        assert (estimate("ucas", equal, skip_zero_groups=True).advantages == 0).all()

    def test_equal_logits_sit_in_the_middle(self):
        found = estimate(
            "ucas", self.inputs(token_logits=torch.full((2, 2), 3.0)), positive=0.0, negative=0.0
        ).advantages
        root = math.sqrt(0.5)
        assert_close(found, torch.tensor([[root - 0.025] * 2, [-root - 0.025, 0.0]]), rtol=1e-5, atol=1e-6)

    def test_a_group_of_one_keeps_what_the_base_gave(self):
        fields = {"mask": self.MASK, "self_certainty": self.CERTAINTY, "token_logits": self.LOGITS}
        alone = make([1.0, 0.0], [0, 1], **fields)
        assert (estimate("ucas", alone).advantages == 0).all()
        given_ = make([1.0, 0.0], [0, 1], advantages=torch.tensor([2.0, -3.0]), **fields)
        assert estimate("ucas", given_).advantages.tolist() == [[2.0, 2.0], [-3.0, 0.0]]

    def test_slow_loop(self):
        rewards, ids = interleaved(3, smallest=3)
        inputs = rollouts(rewards, ids)
        base = estimate("grpo", inputs, **GRPO).advantages.tolist()
        mask, certainty, logits = inputs.mask, inputs.self_certainty.double(), inputs.token_logits.double()
        own = [float(certainty[i][mask[i]].mean()) for i in range(len(base))]
        low, high = float(logits[mask].min()), float(logits[mask].max())
        for i in range(len(base)):
            group = torch.tensor([own[j] for j in range(len(base)) if ids[j] == ids[i]], dtype=torch.float64)
            relative = (own[i] - float(group.mean())) / (float(group.std()) + 1e-6)
            weighted = base[i] * math.exp(-0.25 * relative if base[i] > 0 else 0.35 * relative)
            for t in range(mask.shape[1]):
                level = (float(logits[i, t]) - low) / (high - low + 1e-6)
                expected = weighted - 0.05 * level
                expected = max(expected, 0.0) if weighted > 0 else expected
                found = estimate("ucas", inputs).advantages if (i, t) == (0, 0) else found
                assert found[i, t].item() == pytest.approx(expected if mask[i, t] else 0.0, rel=1e-5, abs=1e-6)


class TestAspo:
    def inputs(self, **fields):
        """Group 0: two right answers that call at 10 and 30, a right one without a call, a wrong one that calls."""
        base = {"first_tool_pos": torch.tensor([10, 30, -1, 5]), "lengths": torch.tensor([50, 150, 70, 10])}
        return make([1.0, 1.0, 1.0, 0.0], **{**base, **fields})

    def test_by_hand(self):
        """pbar 20, Lbar 100: shifts -2 * -10 / 100 = .2 and -.2, within .7 * .5 = .35 of GRPO's .5."""
        found = estimate("aspo_tool", self.inputs()).advantages
        assert_close(found, torch.tensor([0.7, 0.3, 0.5, -1.5]), rtol=1e-5, atol=1e-6)

    def test_the_bound_by_hand(self):
        """delta -20: shifts +-2 are cut to +-.35."""
        found = estimate("aspo_tool", self.inputs(), delta=-20.0).advantages
        assert_close(found, torch.tensor([0.85, 0.15, 0.5, -1.5]), rtol=1e-5, atol=1e-6)

    def test_moving_all_calls_changes_nothing_and_shifts_cancel(self):
        first = self.inputs()
        moved = self.inputs(first_tool_pos=torch.tensor([110, 130, -1, 105]))
        found = estimate("aspo_tool", first).advantages
        assert_close(estimate("aspo_tool", moved).advantages, found)
        assert float((found - estimate("grpo", first, **GRPO).advantages).sum()) == pytest.approx(0, abs=1e-6)

    def test_all_right_or_one_eligible_is_left_alone(self):
        right = make([1.0, 1.0], first_tool_pos=torch.tensor([1, 9]), lengths=torch.tensor([10, 10]))
        assert (estimate("aspo_tool", right).advantages == 0).all()
        single = self.inputs(first_tool_pos=torch.tensor([10, -1, -1, 5]))
        assert_close(estimate("aspo_tool", single).advantages, estimate("grpo", single, **GRPO).advantages)

    @given(seed=st.integers(0, 20), k=st.sampled_from([0.0, 0.5, 0.9]))
    def test_never_more_than_its_share(self, seed, k):
        inputs = rollouts(*interleaved(seed))
        base = estimate("grpo", inputs, **GRPO).advantages
        found = estimate("aspo_tool", inputs, k=k, delta=-30.0).advantages
        assert ((found - base).abs() <= k * base.abs() + 1e-6).all()
        assert (found.sign() == base.sign()).all()

    def test_a_base_per_token(self):
        tokens = torch.tensor([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [-1.0, -0.5]])
        found = estimate("aspo_tool", self.inputs(advantages=tokens)).advantages
        assert_close(found, torch.tensor([[1.2, 0.7], [0.8, 0.3], [1.0, 0.5], [-1.0, -0.5]]))


class TestXrpo:
    def inputs(self, likelihoods, rewards=(1.0, 1.0, 0.0, 0.0)):
        logprobs = torch.tensor(likelihoods).unsqueeze(1).expand(-1, 3).clone()
        logprobs[:, 2] = 9.0
        mask = torch.tensor([[1, 1, 0]]).expand(len(rewards), 3)
        return make(list(rewards), logprobs=logprobs, mask=mask)

    def test_by_hand(self):
        """s = -1.2 -.8 -1 -1, mean -1: eta = exp(-.2) = .81873; bonus 2.5 * .18127 = .45317, cut to .5 * .86602. The
        second is likelier than average and keeps .86602."""
        root = math.sqrt(0.75)
        found = estimate("xrpo_novelty", self.inputs([-1.2, -0.8, -1.0, -1.0])).advantages
        assert_close(found, torch.tensor([1.5 * root, root, -root, -root]), rtol=1e-5, atol=1e-6)

    def test_a_small_bonus_is_not_cut(self):
        """eta = exp(-.04): bonus 2.5 * .039211 = .098026."""
        root = math.sqrt(0.75)
        found = estimate("xrpo_novelty", self.inputs([-1.04, -0.96, -1.0, -1.0])).advantages
        assert found[0].item() == pytest.approx(root + 2.5 * (1 - math.exp(-0.04)), rel=1e-5)

    @pytest.mark.parametrize(
        ("likelihoods", "options"),
        [([-1.0] * 4, {}), ([-1.2, -0.8, -1.0, -1.0], {"lam": 0.0}), ([-800.0, 0.0, 0.0, 0.0], {"lam": 0.0})],
    )
    def test_is_grpo_for_equal_likelihoods_or_without_strength(self, likelihoods, options):
        inputs = self.inputs(likelihoods)
        assert_close(
            estimate("xrpo_novelty", inputs, **options).advantages, estimate("grpo", inputs, **GRPO).advantages
        )

    @given(seed=st.integers(0, 20))
    def test_bounds(self, seed):
        inputs = rollouts(*interleaved(seed))
        base = estimate("grpo", inputs, **GRPO).advantages
        found = estimate("xrpo_novelty", inputs).advantages
        assert torch.equal(found[base <= 0], base[base <= 0])
        assert (found[base > 0] >= base[base > 0]).all()
        assert (found[base > 0] <= 1.5 * base[base > 0] + 1e-6).all()

    def test_extreme_likelihoods_stay_finite(self):
        found = estimate("xrpo_novelty", self.inputs([-3000.0, 0.0, -1.0, -1.0])).advantages
        assert found.isfinite().all()
