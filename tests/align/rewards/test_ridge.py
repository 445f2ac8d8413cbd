"""Ridge heads: worked by hand, against the normal equations, missing labels, the choice of the penalty."""

import math

import pytest
import torch

from align.rewards.ridge import fit_ridge, laid_aside, ridge


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_feature_by_hand():
    """h = 1, 2, y = 2, 4: w = sum h y / (sum h^2 + alpha) = 10 / (5 + 5) = 1. With intercept and alpha = 1 / 2:
    centred h = -1/2, 1/2 and y = -1, 1: w = 1 / (1/2 + 1/2) = 1, b = 3 - 1.5."""
    features, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 4.0])
    weights, bias = ridge(features, targets, [5.0])
    assert (weights.item(), bias.item()) == pytest.approx((1.0, 0.0))
    weights, bias = ridge(features, targets, [0.5], intercept=True)
    assert (weights.item(), bias.item()) == pytest.approx((1.0, 1.5))


@pytest.mark.parametrize("rows", [30, 4])
def test_solves_the_normal_equations(rows):
    """Also with fewer rows than features."""
    features, targets = normal(rows, 6), normal(rows, seed=1)
    weights, _ = ridge(features, targets, [0.1, 10.0])
    for alpha, weight in zip((0.1, 10.0), weights, strict=True):
        left = features.T @ features + alpha * torch.eye(6, dtype=torch.float64)
        assert torch.allclose(weight, torch.linalg.solve(left, features.T @ targets), atol=1e-10)


def test_missing_labels_are_never_read():
    """Each attribute is fitted to its own rows, as if the others were not there."""
    features = normal(60, 4)
    labels = features @ normal(4, 2, seed=2)
    holed = labels.clone()
    holed[::3, 0] = math.nan
    heldout = torch.arange(60) % 5 == 0
    found = fit_ridge(features, holed, heldout=heldout)
    kept = torch.arange(60) % 3 != 0
    alone = fit_ridge(features[kept], labels[kept, :1], heldout=heldout[kept])
    assert torch.equal(found.weight[0], alone.weight[0])
    assert torch.allclose(found(features), labels, atol=1e-4)


def test_the_penalty_is_the_one_that_predicts_best():
    """Noise alone wants the strongest penalty, an exact line the weakest; errors are those of the rows aside."""
    features = normal(80, 10)
    labels = torch.stack([normal(80, seed=3), features[:, 0]], dim=1)
    heldout = torch.arange(80) % 4 == 0
    found = fit_ridge(features, labels, heldout=heldout, alphas=(1e-4, 1.0, 1e6))
    assert found.alphas == (1e6, 1e-4)
    weights, _ = ridge(features[~heldout], labels[~heldout, 0], [1e6])
    error = (features[heldout] @ weights[0] - labels[heldout, 0]).square().mean()
    assert found.heldout_errors[0] == pytest.approx(error.item())


def test_an_attribute_without_labels_on_a_side_is_refused():
    labels = torch.full((4, 1), math.nan)
    labels[:2] = 1.0
    with pytest.raises(ValueError, match="found 2 and 0"):
        fit_ridge(normal(4, 2), labels, heldout=torch.tensor([False, False, True, True]))


def test_groups_stay_together():
    ids = torch.tensor([7, 7, 1, 1, 1, 9, 4, 4])
    aside = laid_aside(ids, 0.5, torch.Generator().manual_seed(0))
    for group in ids.unique():
        assert aside[ids == group].unique().numel() == 1
    assert len(ids[aside].unique()) == 2
    with pytest.raises(ValueError, match="two groups or more, found 1"):
        laid_aside(torch.zeros(3, dtype=torch.int64), 0.5, torch.Generator())
