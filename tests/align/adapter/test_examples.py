"""Targets of held-out rows are on the scale of the training rows; prompts are on one side of the split."""

import math

import torch
from torch.testing import assert_close

from align.adapter.config import TargetConfig
from align.adapter.examples import fitted_normaliser, split, targets_of
from align.adapter.rows import PreferredRows
from align.shaping.adapter import normalised
from align.shaping.normaliser import METHODS, Normaliser

NAN = math.nan


def rows(preferred, rejected=None, prompts=None):
    prompts = prompts or tuple(f"p{i}" for i in range(len(preferred)))
    return PreferredRows(prompts=prompts, preferred=preferred, rejected=rejected)


def test_held_out_rows_are_on_the_training_scale_by_hand():
    """Ranks among 1, 2, 3: 2.5 is above two of three, 2/3; 2 itself is (2 - 1/2)/3 = 1/2; 9 is above all.

    z-score among 1, 2, 3 (mean 2, std 1): 2.5 is 0.5.
    """
    train = torch.tensor([[1.0], [2.0], [3.0], [NAN]])
    new = torch.tensor([[2.5], [2.0], [9.0], [NAN]])
    expected = torch.tensor([[2 / 3], [0.5], [1.0], [NAN]])
    assert_close(Normaliser.fitted(train, "rank")(new), expected, equal_nan=True)
    assert Normaliser.fitted(train, "zscore")(new)[0].item() == 0.5
    minmax = Normaliser.fitted(train, "minmax")  # 1 % and 99 % quantiles: 1.02 and 2.98
    assert_close(minmax(new), torch.tensor([[1.48 / 1.96], [0.5], [1.0], [NAN]]), equal_nan=True)


def test_fitting_and_applying_is_normalising_and_survives_a_file():
    scores = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()
    scores[3, 1], scores[5, 0] = NAN, scores[6, 0]
    for method in METHODS:
        fitted = Normaliser.fitted(scores, method)
        again = Normaliser.from_state(method, {**fitted.state_dict(), "other": scores})
        assert torch.equal(again(scores).nan_to_num(-9), normalised(scores, method).nan_to_num(-9))


def test_both_sides_of_contrastive_targets_have_one_scale_by_hand():
    """Scores 0 and 4 preferred, 2 and 2 rejected: min-max over all four. (4 - 2) and (0 - 2) differ by the width."""
    data = rows(((0.0, 4.0),), ((2.0, 2.0),))
    target = TargetConfig(normaliser="none", temperature=2.0, contrastive=True)
    found, available = targets_of(data, target, fitted_normaliser(data, target))
    assert_close(found, torch.tensor([[-2.0, 2.0]]).div(2).softmax(dim=1))
    assert available.all()
    zscore = TargetConfig(normaliser="zscore", contrastive=True)
    assert [numbers[0].item() for numbers in fitted_normaliser(data, zscore).numbers] == [1.0, 3.0]


def test_an_objective_that_one_side_lacks_is_not_available():
    data = rows(((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)), ((1.0, NAN, 2.0), (0.0, 0.0, 0.0)))
    target = TargetConfig(normaliser="none", contrastive=True)
    found, available = targets_of(data, target, fitted_normaliser(data, target))
    assert available.tolist() == [[True, False, True], [True, True, True]]
    assert found[0, 1] == 0


def test_no_prompt_is_on_both_sides():
    data = rows(tuple((float(i), 0.0) for i in range(20)), prompts=tuple(f"p{i % 10}" for i in range(20)))
    train, heldout = split(data, 0.3, seed=1)
    assert set(train.prompts).isdisjoint(heldout.prompts)
    assert (len(train), len(heldout), len(set(heldout.prompts))) == (14, 6, 3)
    assert split(data, 0.3, seed=1) == (train, heldout)
    assert split(data, 0.3, seed=2) != (train, heldout)
    assert len(split(data, 0.0, seed=1)[1]) == 0
    assert len(set(split(data, 1.0, seed=1)[0].prompts)) == 1
