"""GenEval's rules by hand, and against a slow rendering of the rules with numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from align.rewards.geneval import (
    COLOURS,
    Clause,
    Detection,
    Judged,
    clauses,
    colour_crop,
    colour_prompts,
    judged,
    kept,
    relations,
)


def at(x, y, colour=None, side=10.0):
    return Detection(box=(x, y, x + side, y + side), colour=colour)


class TestRelations:
    @pytest.mark.parametrize(
        ("a", "expected"),
        [
            ((0, 50, 10, 60), {"left of"}),
            ((90, 50, 100, 60), {"right of"}),
            ((50, 0, 60, 10), {"above"}),
            ((50, 90, 60, 100), {"below"}),
            ((0, 0, 10, 10), {"left of", "above"}),
            ((90, 0, 100, 10), {"right of", "above"}),
            ((50, 50, 60, 60), set()),  # the same place
            ((51, 51, 61, 61), set()),  # nearer than a tenth of both sizes
        ],
    )
    def test_by_hand(self, a, expected):
        """b is the box (50, 50, 60, 60); a diagonal has dx = dy = about 0.7."""
        assert relations(a, (50, 50, 60, 60)) == expected

    def test_the_offset_is_shrunk_but_the_length_is_not(self):
        """Offset (4, 0), sizes 10 and 10: shrunk to 2, over 4 is 0.5: not beyond. Offset 4.1: 2.1 / 4.1 is."""
        assert relations((4, 0, 14, 10), (0, 0, 10, 10)) == set()
        assert relations((4.1, 0, 14.1, 10), (0, 0, 10, 10)) == {"right of"}

    @given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.lists(st.integers(1, 40), min_size=4, max_size=4))
    def test_against_numpy(self, corners, sizes):
        a = np.array([corners[0], corners[1], corners[0] + sizes[0], corners[1] + sizes[1]], dtype=float)
        b = np.array([corners[2], corners[3], corners[2] + sizes[2], corners[3] + sizes[3]], dtype=float)
        offset = (a.reshape(2, 2).mean(0)) - (b.reshape(2, 2).mean(0))
        shrunk = np.sign(offset) * np.clip(np.abs(offset) - 0.1 * np.add(sizes[:2], sizes[2:]), 0, None)
        expected = set()
        if np.any(np.abs(shrunk) >= 1e-3):
            dx, dy = shrunk / np.hypot(*offset)
            expected |= {"left of"} if dx < -0.5 else {"right of"} if dx > 0.5 else set()
            expected |= {"above"} if dy < -0.5 else {"below"} if dy > 0.5 else set()
        assert relations(tuple(a), tuple(b)) == expected

    @given(st.tuples(*[st.integers(0, 50)] * 4))
    def test_the_other_way_round(self, corners):
        a, b = at(*corners[:2]).box, at(*corners[2:]).box
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        assert relations(b, a) == {opposite[name] for name in relations(a, b)}


DOGS = [at(0, 0, "red"), at(20, 0, "red"), at(40, 0, "blue")]


class TestJudged:
    @pytest.mark.parametrize(
        ("found", "wanted", "expected"),
        [
            # two dogs wanted
            (2, 2, Judged(dense=1.0, dense_official=1.0, strict_correct=True, correct=True)),
            (1, 2, Judged(dense=0.5, dense_official=0.5, strict_correct=False, correct=False)),
            (3, 2, Judged(dense=0.5, dense_official=0.5, strict_correct=False, correct=True)),
            (0, 2, Judged(dense=0.0, dense_official=0.0, strict_correct=False, correct=False)),
            # four found, one wanted: 1 - 3 / 1 = -2
            (4, 1, Judged(dense=-2.0, dense_official=-2.0, strict_correct=False, correct=True)),
        ],
    )
    def test_counts_by_hand(self, found, wanted, expected):
        assert judged({"dog": [at(20 * i, 0) for i in range(found)]}, [Clause(name="dog", count=wanted)]) == expected

    def test_colours_by_hand(self):
        """Three wanted and there, two of them red: (1 + (1 - 1/3)) / 2 = 5/6."""
        found = judged({"dog": DOGS}, [Clause(name="dog", count=3, colour="red")])
        assert found.dense == pytest.approx(5 / 6)
        assert not found.strict_correct
        assert not found.correct

    def test_a_wrong_count_with_a_colour_counts_twice(self):
        """Two wanted, three there: count term 1/2, colour term 0, mean 1/4. The surest two are red: the benchmark is
        content."""
        found = judged({"dog": DOGS}, [Clause(name="dog", count=2, colour="red")])
        assert found.dense == 0.25
        assert (found.strict_correct, found.correct) == (False, True)

    def test_positions_by_hand(self):
        """Clause 0: 1. Clause 1: 1 for the count, 1 for the place: mean 1."""
        include = [Clause(name="cat"), Clause(name="dog", position=("left of", 0))]
        right = judged({"cat": [at(50, 0)], "dog": [at(0, 0)]}, include)
        assert right == Judged(dense=1.0, dense_official=1.0, strict_correct=True, correct=True)

    def test_the_official_quirk_of_a_wrong_place(self):
        """Count terms 1 and 1, place 0: 2/3. The released code adds 0 and then 1: 3/4, so the place earned half."""
        include = [Clause(name="cat"), Clause(name="dog", position=("right of", 0))]
        wrong = judged({"cat": [at(50, 0)], "dog": [at(0, 0)]}, include)
        assert wrong.dense == pytest.approx(2 / 3)
        assert wrong.dense_official == 0.75
        assert not wrong.strict_correct
        assert not wrong.correct

    def test_a_place_beside_nothing(self):
        """No cat: 0; dog: 1 for the count, 0 for the place: mean 1/3."""
        include = [Clause(name="cat"), Clause(name="dog", position=("left of", 0))]
        found = judged({"dog": [at(0, 0)]}, include)
        assert found.dense == found.dense_official == pytest.approx(1 / 3)
        assert not found.correct

    def test_a_wrong_colour_leaves_the_place_out(self):
        """Cat 1; dog: count 1, colour 0, and no term for the place: 2/3."""
        include = [Clause(name="cat"), Clause(name="dog", colour="red", position=("left of", 0))]
        found = judged({"cat": [at(50, 0)], "dog": [at(0, 0, "blue")]}, include)
        assert found.dense == found.dense_official == pytest.approx(2 / 3)

    def test_every_one_must_stand_there(self):
        include = [Clause(name="cat", count=2), Clause(name="dog", position=("left of", 0))]
        assert judged({"cat": [at(50, 0), at(80, 0)], "dog": [at(20, 0)]}, include).correct
        assert not judged({"cat": [at(50, 0), at(0, 0)], "dog": [at(20, 0)]}, include).correct

    def test_what_must_not_be_there(self):
        """The tag `counting`: two dogs, and not three. Only the verdicts change, not the dense score."""
        include, exclude = [Clause(name="dog", count=2)], [Clause(name="dog", count=3)]
        assert judged({"dog": DOGS[:2]}, include, exclude).correct
        three = judged({"dog": DOGS}, include, exclude)
        assert three == Judged(dense=0.5, dense_official=0.5, strict_correct=False, correct=False)

    def test_nothing_wanted(self):
        assert judged({"dog": DOGS}, []) == Judged(dense=0.0, dense_official=0.0, strict_correct=True, correct=True)

    @given(
        st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.sampled_from(["red", "blue"])), max_size=4),
        st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.sampled_from(["red", "blue"])), max_size=4),
        st.integers(1, 3),
        st.sampled_from([None, "red"]),
        st.sampled_from([None, "left of", "above"]),
    )
    def test_verdicts_are_ordered(self, cats, dogs, count, colour, relation):
        """Strictly right is a full dense score and right by the benchmark."""
        position = None if relation is None else (relation, 0)
        include = [Clause(name="cat", count=count), Clause(name="dog", colour=colour, position=position)]
        found = judged({"cat": [at(*cat) for cat in cats], "dog": [at(*dog) for dog in dogs]}, include)
        assert found.dense <= found.dense_official <= 1
        assert found.strict_correct == (found.dense == 1)
        assert found.correct or not found.strict_correct


class TestMetadata:
    def test_clauses(self):
        rows = [{"class": "cat", "count": 2, "color": "red"}, {"class": "dog", "count": 1, "position": ["above", 0]}]
        assert clauses(rows) == [
            Clause(name="cat", count=2, colour="red"),
            Clause(name="dog", count=1, position=("above", 0)),
        ]

    @pytest.mark.parametrize(
        "rows", [[{"count": 1}], [{"class": "a", "colour": "red"}], [{"class": "a", "position": ["above", 0]}]]
    )
    def test_clauses_that_are_none(self, rows):
        with pytest.raises(ValueError, match="expected"):
            clauses(rows)

    def test_boxes_that_count(self):
        assert kept([0.2, 0.95, 0.3, 0.31, 0.92]) == [1, 4, 3]
        assert kept([0.2, 0.95, 0.3, 0.31, 0.92], counting=True) == [1, 4]
        assert kept([0.5 + i / 100 for i in range(20)]) == list(range(19, 3, -1))


def test_colour_crop_by_hand():
    """4 x 4 red, box the right half, mask its upper row: red above, #999 below."""
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, 2:] = True
    crop = np.asarray(colour_crop(Image.new("RGB", (4, 4), "red"), (2, 0, 4, 4), mask))
    assert crop.shape == (4, 2, 3)
    assert (crop[:2] == (255, 0, 0)).all()
    assert (crop[2:] == 0x99).all()


def test_colour_prompts():
    prompts = colour_prompts("dog")
    assert tuple(prompts) == COLOURS
    assert prompts["red"] == ["a photo of a red dog", "a photo of a red-colored dog", "a photo of a red object"]
