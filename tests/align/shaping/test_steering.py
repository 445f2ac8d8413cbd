"""Whether a policy follows its directions: the numbers by hand, and the scale they are on."""

import math

import pytest
import torch

from align.shaping.steering import Scale, steering_figures


def figures(obtained):
    directions = torch.eye(2, dtype=torch.float64)
    return steering_figures(directions, torch.tensor(obtained, dtype=torch.float64), ("good", "short"), reference=-1.0)


def test_a_policy_that_follows():
    """Asked for (1, 0) it gives (2, 0), for (0, 1) it gives (0, 1): (1, -1) . (2, -1) = 3 > 0. Above (-1, -1) the boxes
    are 3 x 1 and 1 x 2, and 1 x 1 is in both: 4."""
    assert figures([[2.0, 0.0], [0.0, 1.0]]) == pytest.approx(
        {"control/good": 1, "control/short": 1, "control/violated_pairs": 0, "control/hypervolume": 4}
    )


def test_a_policy_that_does_the_opposite():
    found = figures([[0.0, 1.0], [2.0, 0.0]])
    assert (found["control/good"], found["control/short"], found["control/violated_pairs"]) == (-1, -1, 1)


def test_a_policy_that_cannot_be_steered():
    """The same for all directions: no control, no pair in the wrong order."""
    found = figures([[1.0, 1.0], [1.0, 1.0]])
    assert found["control/good"] == 0
    assert (found["control/violated_pairs"], found["control/hypervolume"]) == (0, pytest.approx(4))


def test_the_scale_leaves_out_what_is_unscored():
    """1 and 3 have mean 2 and deviation 1 (over n); a constant keeps its unit; back from JSON it is the same."""
    scale = Scale.of(torch.tensor([[1.0, 5.0], [3.0, 5.0], [math.nan, 5.0]]))
    assert (scale.mean.tolist(), scale.deviation.tolist()) == ([2.0, 5.0], [1.0, 1.0])
    assert scale(torch.tensor([[4.0, 6.0]])).tolist() == [[2.0, 1.0]]
    assert torch.equal(Scale.from_json(scale.to_json()).mean, scale.mean)
    assert Scale.none(2)(torch.tensor([[4.0, 6.0]])).tolist() == [[4.0, 6.0]]
