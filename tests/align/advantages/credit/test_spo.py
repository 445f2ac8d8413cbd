"""SPO in its chain and tree form, and its probability mask as a switch of its own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.credit.spo_chain import cutpoints

tensor = torch.tensor
NAN = math.nan
PROBABILITIES = [0.95, 0.4, 0.99, 0.2, 0.6]


def chain(probabilities, rewards=(1.0,), mask=None, **fields):
    logprobs = tensor(probabilities, dtype=torch.float64).log()
    mask = torch.ones_like(logprobs) if mask is None else tensor(mask)
    return AdvantageInputs(rewards=tensor(rewards), logprobs=logprobs, mask=mask, **fields)


class TestChain:
    @pytest.mark.parametrize(
        "values",
        [
            {"values_at_cuts": tensor([[0.3, 0.7, 0.6]])},
            {"values": tensor([[NAN, 0.3, NAN, 0.7, 0.6]])},
        ],
        ids=["in order", "dense"],
    )
    def test_by_hand(self, values):
        """Unsure at 1, 3, 4; one per segment. Before 1: 0. 1-2: .7 - .3, and 2 is sure. 3: .6 - .7. 4: 1 - .6."""
        result = estimate("spo_chain", chain([PROBABILITIES], **values), interval=1)
        assert_close(result.advantages, tensor([[0.0, 0.4, 0.0, -0.1, 0.4]]))
        assert result.aux["loss_mask"].tolist() == [[0, 1, 0, 1, 1]]
        assert (result.stats["unsure_share"], result.stats["cuts"]) == (pytest.approx(0.6), 3)
        whole = estimate("spo_chain", chain([PROBABILITIES], **values), interval=1, probability_mask=False)
        assert_close(whole.advantages, tensor([[0.0, 0.4, 0.4, -0.1, 0.4]]))

    def test_cutpoints_every_second_unsure_position_and_not_at_holes(self):
        """Unsure and trained: 1, 3, 4 -> 1 and 4; with a hole at 1: 3."""
        logprobs = tensor([PROBABILITIES]).log()
        trained = torch.ones(1, 5, dtype=torch.bool)
        assert cutpoints(logprobs, trained, 0.9, 2).tolist() == [[False, True, False, False, True]]
        trained[0, 1] = False
        assert cutpoints(logprobs, trained, 0.9, 2).tolist() == [[False, False, False, True, False]]

    def test_the_bound_itself_is_sure(self):
        """p = rho exactly: strictly below is unsure, in one comparison for advantage and loss."""
        given = chain([[0.5, 0.25]], values_at_cuts=tensor([[0.0]]))
        assert estimate("spo_chain", given, rho=0.5).aux["loss_mask"].tolist() == [[0, 1]]

    def test_a_long_interval_is_one_segment_and_a_confident_rollout_gets_nothing(self):
        """reward - V(first cut); no unsure position: 0, however much V says."""
        given = chain([[0.1, 0.2, 0.3], [0.95, 0.95, 0.95]], rewards=(1.0, 1.0), values_at_cuts=tensor([[0.25], [0.0]]))
        assert_close(estimate("spo_chain", given, interval=9).advantages, tensor([[0.75] * 3, [0.0] * 3]))

    def test_whitening_over_the_positions_that_receive_something(self):
        """.4 -.1 .4: mean .23333, unbiased variance (2 * .16667^2 + .33333^2) / 2 = .0833333."""
        given = chain([PROBABILITIES], values_at_cuts=tensor([[0.3, 0.7, 0.6]]))
        std = math.sqrt(0.0833333)
        expected = tensor([[0.0, 0.1666667 / std, 0.0, -0.3333333 / std, 0.1666667 / std]])
        assert_close(estimate("spo_chain", given, interval=1, whiten=True).advantages, expected)

    def test_an_unknown_value_silences_its_rollout_only(self):
        values = tensor([[0.3, NAN, 0.6], [0.3, 0.7, 0.6]])
        given = chain([PROBABILITIES] * 2, rewards=(1.0, 1.0), values_at_cuts=values)
        result = estimate("spo_chain", given, interval=1)
        assert_close(result.advantages, tensor([[0.0] * 5, [0.0, 0.4, 0.0, -0.1, 0.4]]))
        assert result.stats["unknown_values"] == 1

    def test_values_must_be_given_for_every_cut(self):
        with pytest.raises(ValueError, match="spo_chain needs `values_at_cuts` or `values`"):
            estimate("spo_chain", chain([PROBABILITIES]))
        with pytest.raises(ValueError, match="1 columns, but a sample has 3 cuts"):
            estimate("spo_chain", chain([PROBABILITIES], values_at_cuts=tensor([[0.3]])), interval=1)

    @settings(max_examples=25)
    @given(data=st.data(), interval=st.integers(1, 3))
    def test_against_a_slow_loop_and_sums_telescope(self, data, interval):
        """Over segments, the advantages sum to reward - V(first cut)."""
        sure = data.draw(st.lists(st.booleans(), min_size=1, max_size=7))
        mask = data.draw(st.lists(st.booleans(), min_size=len(sure), max_size=len(sure)).filter(any))
        dense = data.draw(st.lists(st.integers(0, 8).map(lambda i: i / 8), min_size=len(sure), max_size=len(sure)))
        given = chain([[0.99 if s else 0.5 for s in sure]], (0.625,), [[int(m) for m in mask]], values=tensor([dense]))
        found = estimate("spo_chain", given, interval=interval, probability_mask=False).advantages[0].tolist()
        low = [t for t in range(len(sure)) if mask[t] and not sure[t]]
        cuts = low[::interval]
        expected, total = [0.0] * len(sure), 0.0
        for place, cut in enumerate(cuts):
            stop = cuts[place + 1] if place + 1 < len(cuts) else len(sure)
            gain = (dense[stop] if stop < len(sure) else 0.625) - dense[cut]
            total += gain
            for t in range(cut, stop):
                expected[t] = gain if mask[t] else 0.0
        assert found == pytest.approx(expected, abs=1e-6)
        assert not cuts or total == pytest.approx(0.625 - dense[cuts[0]])


class TestTree:
    PATHS = AdvantageInputs(
        rewards=tensor([1.0, 0.0, 0.0, 1.0]),
        group_ids=tensor([3, 3, 3, 3]),
        mask=torch.ones(4, 4),
        step_key=tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 2, 2], [1, 1, 0, 0]]),
        seg_id=tensor([[0, 0, 1, 1]] * 4),
    )

    def test_by_hand(self):
        """Root -> a (leaves 1 0 0), b (leaf 1). V(a) = 1/3, V(b) = 1, V(root) = 2/3.

        Segment 0: 1/3 - 2/3 and 1 - 2/3. Segment 1 under a: 1 - 1/3, -1/3, -1/3; under b, an only child: 0.
        """
        result = estimate("spo_tree", self.PATHS)
        a, b = [-1 / 3, -1 / 3], [1 / 3, 1 / 3]
        expected = [[*a, 2 / 3, 2 / 3], [*a, -1 / 3, -1 / 3], [*a, -1 / 3, -1 / 3], [*b, 0, 0]]
        assert_close(result.advantages, tensor(expected))
        assert_close(result.aux["edge_share"], tensor([[1 / 3, 1 / 3, 1, 1]] * 3 + [[1.0, 1, 1, 1]]).double())

    def test_divided_by_the_siblings_deviation_and_leave_one_out(self):
        """Siblings 1/3 and 1: population std 1/3. Leaves 1 0 0: std sqrt(2)/3. Leave-one-out: times 2 and times 3/2."""
        divided = estimate("spo_tree", self.PATHS, scale="std").advantages
        assert_close(divided[0], tensor([-1.0, -1.0, math.sqrt(2), math.sqrt(2)]))
        assert (divided[3, 2:] == 0).all()
        alone = estimate("spo_tree", self.PATHS, loo=True).advantages
        assert_close(alone[[0, 3]], tensor([[-2 / 3, -2 / 3, 1.0, 1.0], [2 / 3, 2 / 3, 0.0, 0.0]]))

    def test_without_segments_the_branching_position_alone_earns(self):
        """The second key of a pair never branches."""
        plain = AdvantageInputs(
            rewards=self.PATHS.rewards,
            group_ids=self.PATHS.group_ids,
            mask=self.PATHS.mask,
            token_ids=self.PATHS.step_key,
        )
        assert_close(estimate("spo_tree", plain).advantages[0], tensor([-1 / 3, 0.0, 2 / 3, 0.0]))

    def test_a_homogeneous_tree_is_an_empty_training_set(self):
        """0.1 three times is not 3 * 0.1 / 3 in floating point; the advantages are 0 all the same."""
        same = AdvantageInputs(
            rewards=tensor([0.1, 0.1, 0.1, 0.7]),
            group_ids=self.PATHS.group_ids,
            mask=self.PATHS.mask,
            step_key=self.PATHS.step_key,
        )
        assert (estimate("spo_tree", same).advantages[:3, 1:] == 0).all()

    def test_sums_along_a_path_and_over_siblings(self):
        """Path: reward - V(root). Siblings, each once: 0."""
        result = estimate("spo_tree", self.PATHS)
        assert_close(result.advantages[:, ::2].sum(dim=1), self.PATHS.rewards - 2 / 3)
        assert_close(result.advantages[[0, 3], 0].sum(), tensor(0.0))
        assert_close(result.advantages[:3, 2].sum(), tensor(0.0))


class TestProbabilityMask:
    def test_on_its_paper_s_base(self):
        """GRPO of [1, 0] is +-.70711; position 0 of row 0 and both of row 1 are unsure."""
        given = chain([[0.5, 0.95], [0.1, 0.8]], rewards=(1.0, 0.0), group_ids=tensor([0, 0]))
        result = estimate("probability_mask", given)
        assert_close(result.advantages, tensor([[0.70711, 0.0], [-0.70711, -0.70711]]), atol=1e-5, rtol=0)
        assert result.aux["loss_mask"].tolist() == [[1, 0], [1, 1]]
        assert result.stats["unsure_share"] == 0.75

    def test_on_any_advantages(self):
        given = chain([[0.5, 0.95]], advantages=tensor([[3.0, 4.0]]))
        assert estimate("probability_mask", given).advantages.tolist() == [[3, 0]]
        assert estimate("probability_mask", given, rho=1.01).advantages.tolist() == [[3, 4]]
