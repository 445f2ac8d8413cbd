"""PURE: the soft minimum, the paper's baseline and the released forms."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate
from align.advantages.credit.pure_min import exact_minimum, mean_form, soft_minimum

tensor = torch.tensor


def batch(scores, ends, mask=None, rewards=None, ids=None):
    scores = tensor(scores, dtype=torch.float64)
    return AdvantageInputs(
        rewards=torch.zeros(len(scores)) if rewards is None else tensor(rewards),
        group_ids=torch.zeros(len(scores)).long() if ids is None else tensor(ids),
        mask=torch.ones_like(scores) if mask is None else tensor(mask),
        token_rewards=scores,
        step_end=tensor(ends) != 0,
    )


def soft(scores, temperature):
    scores = tensor([scores], dtype=torch.float64)
    return soft_minimum(scores, torch.ones_like(scores, dtype=torch.bool), temperature)


def test_soft_minimum_by_hand():
    """r .6 -.2 .4 at T = .1: weights ~ e^-6, e^2, e^-4 = .00248, 7.389, .0183, over 7.410 -> .0003 .9972 .0025."""
    assert_close(soft([0.6, -0.2, 0.4], 0.1), tensor([[0.0002, -0.1994, 0.0010]]).double(), atol=5e-5, rtol=0)
    assert float(soft([0.6, -0.2, 0.4], 2.0).sum()) == pytest.approx(0.2068, abs=5e-5)


def test_returns_by_hand():
    """Sums from each step on of r* = .0002 -.1994 .0010."""
    result = estimate("pure_min", batch([[0.6, -0.2, 0.4]] * 2, [[1, 1, 1]] * 2))
    assert_close(result.aux["returns"][0], tensor([-0.1982, -0.1985, 0.0010]).double(), atol=5e-5, rtol=0)


def test_exact_form_and_the_paper_s_baseline_by_hand():
    """Rollout 0: tokens x x | x, scores .5 (token 1) and -.1 (token 2): worst is step 2, returns -.1 -.1 -.1, sum -.3.

    Rollout 1: one step of two tokens, .4: returns .4 .4 -, sum .8. Longest answer 3: b_0 = .8 / 3, b_1 = -.3 / 3 = -.1.
    Outcomes 1 and 0: +1 and -1. With outcome_coef .5: A_0 = -.1 - .26667 + .5, A_1 = .4 + .1 - .5 = 0.
    """
    given = batch([[0, 0.5, -0.1], [9, 0.4, 0]], [[0, 1, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 0]], rewards=[1.0, 0.0])
    given.token_rewards[1, 0] = 0.0
    result = estimate("pure_min", given, form="exact", outcome_coef=0.5)
    assert_close(result.advantages, tensor([[2 / 15, 2 / 15, 2 / 15], [0.0, 0.0, 0.0]]), atol=1e-7, rtol=1e-6)
    longer = estimate("pure_min", given, form="exact", outcome_coef=0.0, max_length=10)
    assert_close(longer.advantages, tensor([[-0.18] * 3, [0.43, 0.43, 0.0]]))


def test_a_rollout_without_a_step_end_is_one_step():
    result = estimate("pure_min", batch([[0, 0, 0.5], [0, 0, 0.25]], [[0, 0, 0], [0, 0, 1]]))
    assert_close(result.aux["returns"], tensor([[0.5] * 3, [0.25] * 3]).double())
    assert result.stats["without_step_end"] == 1


def test_released_forms_by_hand():
    """Exact minimum, steps of tokens (2, 1) and (2): r* = (0, -.1) and (.4).

    main_token: beta_0 = .4 / 2 = .2 -> steps 0 - .4 and -.1 - .2 -> sums -.7 -.7 -.3, scored tokens 1 and 2 get 0;
                beta_1 = -.1 / 3 -> .4 + .2/3 = .46667, its scored token 0.
    main_step:  the other's r* per step: .4 -> -.4, -.5 -> -.9 -.9 -.5; rollout 1: .4 + .05 = .45.
    """
    given = batch([[0, 0.5, -0.1], [0, 0.4, 0]], [[0, 1, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 0]])
    options = {"form": "exact", "outcome_coef": 0.0}
    token = estimate("pure_min", given, release="main_token", **options).advantages
    assert_close(token, tensor([[-0.7, 0.0, 0.0], [0.4 + 0.2 / 3, 0.0, 0.0]]))
    step = estimate("pure_min", given, release="main_step", **options).advantages
    assert_close(step, tensor([[-0.9, 0.0, 0.0], [0.45, 0.0, 0.0]]))


def test_verl_form_by_hand():
    """Returns -.1 x 3 and .4 x 2 plus outcomes 1, 0: .9 x 3 (sum 2.7) and .4 x 2 (sum .8); baselines .8/3 and .9.

    Before whitening .63333 x 3 and -.5 x 2: mean .18, unbiased variance (3 * .45333^2 + 2 * .68^2) / 4 = .3853333.
    """
    given = batch([[0, 0.5, -0.1], [0, 0.4, 0]], [[0, 1, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 0]], rewards=[1.0, 0.0])
    std = math.sqrt(0.385333333)
    result = estimate("pure_min", given, form="exact", release="verl")
    assert_close(result.advantages, tensor([[0.4533333 / std] * 3, [-0.68 / std, -0.68 / std, 0.0]]))


numbers = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=1, max_size=5)


@settings(max_examples=30)
@given(scores=numbers, shift=st.sampled_from([-3.0, 0.5]), low=st.sampled_from([1e-3, 0.1, 1.0]))
def test_between_minimum_and_mean_and_rising_with_temperature(scores, shift, low):
    cold, warm = float(soft(scores, low).sum()), float(soft(scores, 3 * low).sum())
    assert min(scores) - 1e-12 <= cold <= warm + 1e-12 <= statistics.fmean(scores) + 2e-12
    assert float(soft([s + shift for s in scores], low).sum()) == pytest.approx(cold + shift)
    assert float(soft(scores, 1e-5).sum()) == pytest.approx(min(scores))  # no overflow as T -> 0
    assert float(soft(scores, 1e9).sum()) == pytest.approx(statistics.fmean(scores), abs=1e-6)
    exists = torch.ones(1, len(scores), dtype=torch.bool)
    assert float(exact_minimum(tensor([scores]), exists, 1.0).sum()) == min(scores)
    assert float(mean_form(tensor([scores]).double(), exists, 1.0).sum()) == pytest.approx(statistics.fmean(scores))


@settings(max_examples=20)
@given(steps=st.lists(numbers, min_size=2, max_size=4), data=st.data())
def test_against_a_slow_loop(steps, data):
    """Each step is one or two tokens long; written with lists, rollout by rollout."""
    outcomes = data.draw(st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=len(steps), max_size=len(steps)))
    chains = [[(score, data.draw(st.integers(1, 2))) for score in row] for row in steps]
    width = max(sum(length for _, length in chain) for chain in chains)
    scores, ends, mask, returns = [], [], [], []
    for chain in chains:
        exponentials = [math.exp(-(score - min(s for s, _ in chain)) / 0.1) for score, _ in chain]
        starred = [e / sum(exponentials) * score for e, (score, _) in zip(exponentials, chain, strict=True)]
        row = [sum(starred[k:]) for k, (_, length) in enumerate(chain) for _ in range(length)]
        last = [place == length - 1 for _, length in chain for place in range(length)]
        values = [score if place == length - 1 else 0.0 for score, length in chain for place in range(length)]
        pad = width - len(row)
        returns.append(row)
        scores.append(values + [77.0] * pad)
        ends.append([*map(int, last), *[1] * pad])
        mask.append([1] * len(row) + [0] * pad)
    result = estimate("pure_min", batch(scores, ends, mask, rewards=outcomes)).advantages
    for i, row in enumerate(returns):
        others = [j for j in range(len(steps)) if j != i]
        baseline = sum(sum(returns[j]) for j in others) / (len(others) * width)
        outcome = outcomes[i] - statistics.fmean(outcomes[j] for j in others)
        expected = [value - baseline + outcome for value in row] + [0.0] * (width - len(row))
        assert_close(result[i], tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6)
