"""Directions: angles, names, random ones, and their text."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping import directions as d

TEMPLATE = "Aim for {helpfulness} x helpfulness + {verbosity} x verbosity."
NAMES = ("helpfulness", "verbosity")


def test_by_hand():
    """-15 degrees: (0.965926, -0.258819), printed as 97 and -26, whose length is 1.00424 before it is 1 again."""
    v = d.from_angle(-15.0)
    assert_close(v, torch.tensor([0.965926, -0.258819], dtype=torch.float64), rtol=0, atol=1e-6)
    assert d.to_integers(v) == [97, -26]
    assert math.hypot(0.97, -0.26) == pytest.approx(1.00424, abs=1e-5)
    assert d.from_integers([97, -26]).norm().item() == pytest.approx(1.0)
    assert d.to_text(TEMPLATE, NAMES, v) == "Aim for 97 x helpfulness + -26 x verbosity."
    assert d.to_angle(v) == pytest.approx(-15)


@given(degrees=st.integers(-45, 0))
def test_text_tells_every_degree_of_the_cone_apart_and_reads_back(degrees):
    text = d.to_text(TEMPLATE, NAMES, d.from_angle(float(degrees)))
    assert text != d.to_text(TEMPLATE, NAMES, d.from_angle(degrees - 1.0))
    assert list(d.from_text(text, TEMPLATE, NAMES).values()) == d.to_integers(d.from_angle(float(degrees)))


def test_negative_zero_prints_as_zero():
    assert d.to_text("{a}{b}", ("a", "b"), torch.tensor([1.0, -0.0])) == "1000"


def test_from_names():
    found = d.from_names({"verbosity": -3.0, "helpfulness": 4.0}, ("helpfulness", "safety", "verbosity"))
    assert found.tolist() == [0.8, 0.0, -0.6]


def test_random_ones_stay_in_their_cone_and_repeat():
    angles = d.random_angles(500, torch.Generator().manual_seed(0), exact_zero=0.5)
    degrees = torch.rad2deg(torch.atan2(angles[:, 1], angles[:, 0]))
    assert degrees.min() >= -45
    assert degrees.max() <= 0
    assert 150 < int((degrees == 0).sum()) < 350
    main = torch.tensor([1.0, 1.0, 0.0])
    found = d.random_directions(200, main, torch.Generator().manual_seed(1), cap_degrees=30.0, non_negative=(2,))
    assert found.shape == (200, 3)
    assert_close(found.norm(dim=1), torch.ones(200, dtype=torch.float64))
    assert max(d.angle_between(v, main.double()) for v in found) <= 30.0 + 1e-6
    assert (found[:, 2] >= 0).all()
    again = d.random_directions(200, main, torch.Generator().manual_seed(1), cap_degrees=30.0, non_negative=(2,))
    assert torch.equal(found, again)


def test_control_is_monotone_for_exact_maximisers():
    """If r(v) maximises v . r over a fixed set, no pair of directions is violated; swapped outcomes violate it."""
    outcomes = torch.rand(60, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    asked = torch.stack([d.from_angle(float(angle)) for angle in range(-40, 45, 10)])
    chosen = outcomes[(asked @ outcomes.T).argmax(dim=1)]
    assert d.violated_pairs(asked, chosen) == 0.0
    assert d.violated_pairs(asked, chosen.flip(0)) > 0.5
    assert d.violated_pairs(asked[:1], chosen[:1]) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.unit(torch.zeros(2)), "needs a component other than 0"),
        (lambda: d.unit(torch.tensor([math.nan, 1.0])), "must have finite components"),
        (lambda: d.from_names({"speed": 1.0}, NAMES), "the direction names speed"),
        (lambda: d.to_text("{helpfulness}", NAMES, d.from_angle(0.0)), "no slot for verbosity: write {verbosity}"),
        (lambda: d.from_text("hello", TEMPLATE, NAMES), "expected a text of the form"),
        (
            lambda: d.random_directions(1, torch.ones(3), torch.Generator(), cap_degrees=1e-4),
            "raise `cap_degrees`",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
