"""Directions of both branches: drawn by key, named, and told from those that training never drew."""

import pytest

from align.config.check_directions import asks_for_less, check_directions
from align.config.directions import Arc, Cap, Listed, described, middle_of, shown_in_words
from align.control import degrees_outside, draw_directions, label_of, parse_direction, vector_of
from align.errors import AlignError

NAMES = ("good", "short")


def test_a_draw_is_a_pure_function_of_its_key():
    """Within the arc, whole hundredths; one more draw does not change those before it."""
    drawn = draw_directions(Arc(low=0, high=90), NAMES, 20, 3, 7)
    assert drawn == draw_directions(Arc(low=0, high=90), NAMES, 20, 3, 7)
    assert drawn != draw_directions(Arc(low=0, high=90), NAMES, 20, 3, 8)
    assert all(0 <= number <= 100 for vector in drawn for number in vector)


@pytest.mark.parametrize(
    ("given", "asked", "degrees"),
    [
        (Arc(low=-45, high=0), {"good": 1.0, "short": 1.0}, 45.0),
        (Arc(low=-45, high=0), {"good": 1.0}, 0.0),
        (Cap(main={"good": 1.0}, degrees=30), {"short": 1.0}, 60.0),
        (Listed(directions=({"good": 1.0}, {"short": 2.0})), {"short": 1.0, "good": -1.0}, 45.0),
    ],
)
def test_how_far_a_direction_is_from_the_trained_ones(given, asked, degrees):
    assert degrees_outside(given, NAMES, vector_of(asked, NAMES)) == pytest.approx(degrees, abs=0.5)


def test_words():
    assert parse_direction("good=0.8, short=-0.6") == {"good": 0.8, "short": -0.6}
    assert label_of((80, -60), NAMES) == "good 80, short -60"
    assert described(Arc(low=-45, high=0), NAMES) == "-45 to 0 degrees from good"
    assert described(Cap(degrees=30), NAMES) == "within 30 degrees of good 1, short 1"
    assert shown_in_words(({"good": 0.7071},)) == ["good 0.71"]
    middle = middle_of(({"good": 3.0, "short": 4.0}, {"good": 2.0}), NAMES)  # (0.6, 0.8) + (1, 0)
    assert middle == pytest.approx({"good": 1.6, "short": 0.8})


@pytest.mark.parametrize("text", ["good", "good=x", "=1", "good=inf"])
def test_what_is_no_direction(text):
    with pytest.raises(AlignError, match="a direction is written"):
        parse_direction(text)


def test_contradictions():
    def keys(given, names=NAMES, **shown):
        return [key for problem in check_directions(given, names, "sample", shown) for key in problem.keys]

    assert keys(Arc()) == []
    assert keys(Arc(low=10, high=0)) == ["sample.low", "sample.high"]
    assert keys(Arc(), names=("a", "b", "c")) == ["sample.kind", "rewards"]
    assert keys(Listed()) == ["sample.directions"]
    assert keys(Cap(main={"bad": 1.0})) == ["sample.main"]
    assert keys(Arc(), shown=({"good": 0.0},)) == ["shown"]
    assert [asks_for_less(one) for one in (Arc(), Arc(low=-1), Cap(), Cap(non_negative=False))] == [
        False,
        True,
        False,
        True,
    ]
    assert asks_for_less(Listed(directions=({"good": 1.0, "short": -1.0},)))
