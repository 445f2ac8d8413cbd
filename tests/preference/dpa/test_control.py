"""Directions in words and scores along them, by hand."""

import math

import pytest
import torch

from align.errors import AlignError
from align.shaping.directions import from_text
from preference.dpa.config import Arc, Cap, DpaConfig, Listed
from preference.dpa.control import Control, Scale, draw
from preference.formats import TextRow

NAMES = ("helpful", "brief", "kind")
USER = {"role": "user", "content": "hi"}


def control(**changes):
    return Control.of(DpaConfig(**changes), NAMES)


def test_a_direction_becomes_integers_and_words():
    """(0.8, 0.6) has length 1, so its integers are 80 and 60; the third objective is 0."""
    found = control()
    vector = found.vector({"helpful": 4.0, "brief": 3.0})
    assert vector == (80, 60, 0)
    text = found.text(vector)
    assert text == "Answer well and safely. Aim for the best value of 80 x helpful + 60 x brief + 0 x kind."
    assert from_text(found.text(vector), found.template, NAMES) == {"helpful": 80, "brief": 60, "kind": 0}
    assert found.label(vector) == "helpful 80, brief 60"


def test_neighbours_of_one_degree_differ_in_words():
    found = Control.of(DpaConfig(), NAMES[:2])
    texts = [
        found.text(found.vector({"helpful": math.cos(math.radians(a)), "brief": math.sin(math.radians(a))}))
        for a in range(91)
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("components", "message"),
    [({"helpfull": 1.0}, "Did you mean"), ({"helpful": 0.0}, "no direction"), ({"brief": math.inf}, "no direction")],
)
def test_what_is_no_direction(components, message):
    with pytest.raises(AlignError, match=message):
        control().vector(components)


@pytest.mark.parametrize(
    ("objectives", "message"), [({"x": {"unknown": 1.0}}, "is no reward"), ({"x": {"brief": 0.0}}, "is empty")]
)
def test_objectives_that_cannot_be(objectives, message):
    with pytest.raises(AlignError, match=message):
        control(objectives=objectives)


def test_a_template_needs_every_slot():
    with pytest.raises(AlignError, match="slot for the objective `kind`"):
        control(template="{helpful} {brief}")


def test_where_the_words_stand():
    words = control().text((100, 0, 0))
    plain, chat = TextRow(prompt="hi"), TextRow(prompt=(USER,))
    own = TextRow(prompt=({"role": "system", "content": "Be kind."}, USER))
    system = control()
    assert system.asked(plain, (100, 0, 0)).prompt == f"{words}\n\nhi"
    assert system.asked(chat, (100, 0, 0)).prompt == ({"role": "system", "content": words}, USER)
    assert system.asked(own, (100, 0, 0)).prompt[0]["content"] == f"Be kind.\n\n{words}"
    prefix = control(placement="prefix").asked(own, (100, 0, 0)).prompt
    assert prefix == (own.prompt[0], {"role": "user", "content": f"{words}\n\nhi"})
    assert control(placement="none").asked(chat, (100, 0, 0)) == chat


def test_scores_are_projections_on_the_printed_direction():
    """Rewards (1, 2, 3) with means (1, 1, 1) and deviations (1, 2, 4) are (0, 0.5, 0.5); along (0.8, 0.6, 0): 0.3."""
    scale = Scale(mean=torch.ones(3).double(), deviation=torch.tensor([1.0, 2.0, 4.0]).double())
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    found = control()
    assert found.scores(rewards, [(80, 60, 0)], scale).tolist() == pytest.approx([0.3])
    assert found.scores(rewards, [(-80, -60, 0)], scale).tolist() == pytest.approx([-0.3])
    mixed = control(objectives={"good": {"helpful": 1.0, "kind": 2.0}, "brief": {"brief": 1.0}})
    assert mixed.values(rewards, scale).tolist() == [[pytest.approx(1.0), pytest.approx(0.5)]]


def test_unscored_counts_only_where_it_counts():
    rewards = torch.tensor([[1.0, float("nan"), 0.0]])
    found = control().scores(rewards.repeat(2, 1), [(100, 0, 0), (80, 60, 0)], Scale.none(3))
    assert found[0] == 1.0
    assert found[1].isnan()


def test_scale_of_scored_answers():
    """(0, 2) has mean 1 and deviation 1; a constant reward keeps deviation 1; NaN is left out."""
    scale = Scale.of(torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, float("nan")]]))
    assert scale.mean.tolist() == [1.0, 5.0, 1.0]
    assert scale.deviation.tolist() == [1.0, 1.0, 1.0]
    assert Scale.from_json(scale.to_json()).mean.equal(scale.mean)


def test_drawn_directions_are_where_they_should_be():
    found = control()
    cap = draw(Cap(degrees=55.0), found, 64, 0, 1)
    middle = torch.ones(3).double() / math.sqrt(3)
    for vector in cap:
        unit = torch.tensor(vector).double() / torch.tensor(vector).double().norm()
        assert min(vector) >= 0
        assert math.degrees(math.acos(min(1.0, float(unit @ middle)))) < 56
    assert draw(Cap(), found, 64, 0, 1) == draw(Cap(), found, 64, 0, 1)
    assert draw(Cap(), found, 64, 0, 1) != draw(Cap(), found, 64, 0, 2)
    two = Control.of(DpaConfig(), NAMES[:2])
    angles = [math.degrees(math.atan2(v[1], v[0])) for v in draw(Arc(low=-45.0, high=0.0), two, 64, 0)]
    assert min(angles) > -46
    assert max(angles) < 1
    listed = Listed(directions=({"helpful": 1.0}, {"brief": 2.0}))
    assert set(draw(listed, found, 64, 0)) == {(100, 0, 0), (0, 100, 0)}


def test_shown_directions():
    assert [round(one["helpful"], 3) for one in Arc().shown(NAMES[:2], 3)] == [1.0, 0.707, 0.0]
    shown = Cap().shown(NAMES, 7)
    assert len(shown) == 7
    assert shown[1] == {"helpful": 1.0}
    assert shown[4] == {"helpful": 1.0, "brief": 1.0}
