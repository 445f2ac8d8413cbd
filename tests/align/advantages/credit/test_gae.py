"""GAE, EGAE and returns: worked by hand, and against loops over the trained positions only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

tensor = torch.tensor


def inputs(token_rewards, values=None, mask=None, **fields):
    token_rewards = tensor(token_rewards, dtype=torch.float64)
    return AdvantageInputs(
        rewards=torch.zeros(len(token_rewards), dtype=torch.float64),
        token_rewards=token_rewards,
        values=None if values is None else tensor(values, dtype=torch.float64),
        mask=torch.ones_like(token_rewards) if mask is None else tensor(mask),
        **fields,
    )


def test_gae_by_hand():
    """r 0 0 1, V .5 .6 .8, gamma 1, lambda .5.

    delta = .6 - .5, .8 - .6, 1 - .8 = .1 .2 .2;  A = .1 + .15, .2 + .1, .2;  targets A + V = .75 .9 1.
    """
    result = estimate("gae", inputs([[0, 0, 1]], [[0.5, 0.6, 0.8]]), lam=0.5)
    assert_close(result.advantages, tensor([[0.25, 0.3, 0.2]]))
    assert_close(result.aux["returns"], tensor([[0.75, 0.9, 1.0]], dtype=torch.float64))


def test_the_reward_of_the_whole_rollout_stands_on_its_last_trained_position():
    batch = AdvantageInputs(rewards=tensor([1.0]), mask=tensor([[1, 1, 1, 0]]), values=tensor([[0.5, 0.6, 0.8, 7.0]]))
    assert_close(estimate("gae", batch, lam=0.5).advantages, tensor([[0.25, 0.3, 0.2, 0.0]]))


def test_a_hole_is_skipped():
    """The value before a tool's answer is compared with the one behind it, whatever stands in between."""
    plain = estimate("gae", inputs([[0, 0, 1]], [[0.5, 0.6, 0.8]]))
    holed = estimate("gae", inputs([[0, 5.0, 0, 1]], [[0.5, float("nan"), 0.6, 0.8]], mask=[[1, 0, 1, 1]]))
    assert torch.equal(holed.advantages[:, [0, 2, 3]], plain.advantages)
    assert holed.advantages[0, 1] == holed.aux["returns"][0, 1] == 0


def test_egae_by_hand():
    """No reward, V .3 .5, lambda .95. Truncated: delta .2, .5 - .5 = 0. Taken for finished: .2 - .475 = -.275, -.5."""
    batch = inputs([[0, 0], [0, 0]], [[0.3, 0.5]] * 2, truncated=tensor([True, False]))
    result = estimate("egae", batch)
    assert_close(result.advantages, tensor([[0.2, 0.0], [-0.275, -0.5]]))
    assert result.aux["value_mask"].tolist() == [[0, 0], [1, 1]]
    assert result.stats["truncated"] == 0.5


def test_egae_with_a_given_value_behind_the_cut_and_a_window():
    """V' = .9: delta .2 and .4, A = .2 + .38, .4; only the second position is trained in this window."""
    batch = inputs(
        [[0, 0]],
        [[0.3, 0.5]],
        truncated=tensor([True]),
        bootstrap_values=tensor([0.9]),
        policy_window_mask=tensor([[0, 1]]),
    )
    assert_close(estimate("egae", batch, bootstrap="given").advantages, tensor([[0.0, 0.4]]))
    with pytest.raises(ValueError, match="egae needs `bootstrap_values`"):
        estimate("egae", inputs([[0]], [[0.3]], truncated=tensor([True])), bootstrap="given")


def test_egae_invariants():
    """Constant value and no reward: nothing. gamma = 1: the last advantage is the last reward. lambda = 1, no
    reward: V_last - V_t."""
    cut = tensor([True])
    assert (estimate("egae", inputs([[0, 0]], [[0.7, 0.7]], truncated=cut)).advantages == 0).all()
    assert estimate("egae", inputs([[3, 2]], [[0.1, 0.7]], truncated=cut)).advantages[0, 1] == 2
    climbing = estimate("egae", inputs([[0, 0, 0]], [[0.25, 1.0, 0.5]], truncated=cut), lam=1)
    assert_close(climbing.advantages, tensor([[0.25, -0.5, 0.0]]))


def test_decoupled_and_length_adaptive_lambda():
    """Targets with lambda 1 are the returns. alpha .5 and three positions: lambda = 1 - 1/1.5 = 1/3."""
    batch = inputs([[0, 0, 1]], [[0.5, 0.6, 0.8]])
    result = estimate("gae", batch, lam=0.5, lam_value=1)
    assert_close(result.aux["returns"], torch.ones(1, 3, dtype=torch.float64))
    assert_close(result.advantages, tensor([[0.25, 0.3, 0.2]]))
    adaptive = estimate("gae", batch, length_alpha=0.5)
    assert torch.equal(adaptive.advantages, estimate("gae", batch, lam=1 / 3).advantages)
    assert torch.equal(estimate("gae", batch, length_alpha=0.1).advantages, estimate("gae", batch, lam=0).advantages)


def test_whitening_by_hand():
    """Advantages 1 2 3 over two rows: mean 2, unbiased variance 1. One position, or equal ones, give 0."""
    batch = inputs([[0, 1], [3, 0]], mask=[[1, 1], [1, 0]])
    white = estimate("returns", batch, whiten=True)
    assert_close(white.advantages, tensor([[-0.57735, -0.57735], [1.154700, 0.0]]))  # 1 1 3: mean 5/3, variance 4/3
    assert white.aux["returns"].tolist() == [[1, 1], [3, 0]]
    assert (estimate("returns", inputs([[4]]), whiten=True).advantages == 0).all()
    assert (estimate("returns", inputs([[0, 4]]), whiten=True).advantages == 0).all()


@pytest.mark.parametrize(
    ("discount", "expected"),
    [
        ("valid_only", [5.0, 6.0, 0.0, 8.0, 8.0, 0.0]),
        ("per_position", [4.0, 4.0, 0.0, 8.0, 8.0, 0.0]),
        ("per_turn", [6.0, 6.0, 0.0, 8.0, 8.0, 0.0]),
        ("reset", [3.0, 2.0, 0.0, 8.0, 8.0, 0.0]),
    ],
)
def test_clocks_by_hand(discount, expected):
    """gamma 1/2, rewards 2 2 | hole | 4 8.

    valid_only: 8, 4 + 4, -, 2 + 4, 2 + 3. per_position: the hole halves once more: 2 + 2, 2 + 2. per_turn: runs end
    with 2 and 8: 8, 2 + 4. reset: 4 + 4 = 8, then afresh: 2, 2 + 1.
    """
    batch = inputs([[2, 2, 100, 4, 8, 100]], mask=[[1, 1, 0, 1, 1, 0]])
    assert estimate("returns", batch, gamma=0.5, discount=discount).advantages.tolist() == [expected]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), gamma=st.sampled_from([0.0, 0.9, 1.0]), lam=st.sampled_from([0.0, 0.7, 1.0]))
def test_gae_against_the_double_sum(seed, gamma, lam):
    """A_k = sum_j (gamma lambda)^j delta_(k+j) over the trained positions, written out."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    mask[:, 2] = True
    batch = AdvantageInputs(rewards=torch.zeros(4), token_rewards=rewards, values=values, mask=mask)
    found = estimate("gae", batch, gamma=gamma, lam=lam)
    back = estimate("returns", batch, gamma=gamma)
    for i in range(4):
        places = mask[i].nonzero().flatten().tolist()
        r, v = rewards[i, places].tolist(), [*values[i, places].tolist(), 0.0]
        delta = [r[k] + gamma * v[k + 1] - v[k] for k in range(len(r))]
        for k, place in enumerate(places):
            expected = sum((gamma * lam) ** (j - k) * delta[j] for j in range(k, len(r)))
            assert float(found.advantages[i, place]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
            if lam == 1:  # A = G - V
                gained = float(back.aux["returns"][i, place]) - v[k]
                assert float(found.advantages[i, place]) == pytest.approx(gained, rel=1e-5, abs=1e-5)


def test_reductions():
    """Nothing truncated: EGAE is GAE. V = 0: returns with factor gamma * lambda."""
    batch = inputs([[1, 2, 4]], [[0.5, 0.1, 0.8]], truncated=tensor([False]))
    assert torch.equal(estimate("egae", batch).advantages, estimate("gae", batch).advantages)
    empty = inputs([[1, 2, 4]], [[0.0] * 3])
    assert_close(
        estimate("gae", empty, gamma=0.5, lam=0.5).advantages, estimate("returns", empty, gamma=0.25).advantages
    )
