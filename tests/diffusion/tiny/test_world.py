"""Captions and meanings are inverse, the split is a partition, painted objects keep apart."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion.tiny import world
from diffusion.tiny.world import Spec, Thing

EVERY = [spec for kind in world.CLASSES for spec in world.specs(kind)]
any_spec = st.sampled_from(EVERY)
HELD_OUT = ["a green circle", "a green square", "a blue square", "a yellow circle"]


class TestCaptions:
    @pytest.mark.parametrize(
        ("text", "spec"),
        [
            ("a red circle", Spec("one", (Thing("red", "circle"),))),
            ("a red circle on the left", Spec("placed", (Thing("red", "circle"),), place="left")),
            ("a red circle at the top", Spec("placed", (Thing("red", "circle"),), place="top")),
            ("three blue squares", Spec("count", (Thing("blue", "square"),) * 3)),
            ("a red circle and a blue square", Spec("two", (Thing("red", "circle"), Thing("blue", "square")))),
            (
                "a red circle left of a blue square",
                Spec("relation", (Thing("red", "circle"), Thing("blue", "square")), relation="left of"),
            ),
            (
                "a small red circle and a large blue square",
                Spec("size", (Thing("red", "circle", "small"), Thing("blue", "square", "large"))),
            ),
            (
                "a red circle, a blue square and a green triangle",
                Spec("three", (Thing("red", "circle"), Thing("blue", "square"), Thing("green", "triangle"))),
            ),
        ],
    )
    def test_worked_examples(self, text: str, spec: Spec) -> None:
        assert world.parse(text) == spec
        assert world.caption(spec) == text

    def test_parse_inverts_caption_for_every_spec(self) -> None:
        assert all(world.parse(world.caption(spec)) == spec for spec in EVERY)

    def test_no_two_specs_share_a_caption(self) -> None:
        assert len({world.caption(spec) for spec in EVERY}) == len(EVERY)

    def test_numbers_of_captions(self) -> None:
        """15 objects. Pairs of different colours: 15 * 12 = 180; triples: 15 * 12 * 9 = 1620."""
        counts = {kind: len(world.captions(kind)) for kind in world.CLASSES}
        pairs, triples = 15 * 12, 15 * 12 * 9
        assert counts == {
            "one": 15,
            "placed": 60,
            "count": 30,
            "two": pairs,
            "relation": 4 * pairs,
            "size": 2 * pairs,
            "three": triples,
        }

    def test_case_and_spaces_do_not_matter(self) -> None:
        assert world.parse("  A red circle ,a BLUE square and  a green triangle") == world.parse(
            "a red circle, a blue square and a green triangle"
        )

    def test_unknown_words_are_named(self) -> None:
        with pytest.raises(ValueError, match="unknown words: 'pink', 'hexagon'"):
            world.parse("a pink hexagon")

    def test_known_words_in_a_wrong_order(self) -> None:
        with pytest.raises(ValueError, match="unknown order"):
            world.parse("circle red a")

    def test_unknown_class(self) -> None:
        with pytest.raises(ValueError, match="'four'"):
            world.specs("four")


class TestSplit:
    @pytest.mark.parametrize("kind", world.CLASSES)
    def test_both_sides_have_every_class(self, kind: str) -> None:
        share = np.mean([world.held_out(text) for text in world.captions(kind)])
        assert 0.15 < share < 0.4

    def test_it_never_moves(self) -> None:
        """Fixed facts: if one of these changes, published held-out figures stop being comparable."""
        assert [text for text in world.captions("one") if world.held_out(text)] == HELD_OUT


class TestPainting:
    @given(spec=any_spec, seed=st.integers(0, 2**32 - 1))
    def test_objects_lie_inside_and_do_not_touch(self, spec: Spec, seed: int) -> None:
        drawn = world.arrange(spec, np.random.default_rng(seed))
        for item in drawn:
            assert min(item.x, item.y) >= 1.25 * item.radius
            assert max(item.x, item.y) <= 64 - 1.25 * item.radius
        for a, b in itertools.combinations(drawn, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) > 1.25 * (a.radius + b.radius)

    def test_the_same_seed_paints_the_same_picture(self) -> None:
        spec = world.parse("a red circle and a blue square")
        one, two, other = (np.asarray(world.render(spec, np.random.default_rng(seed))) for seed in (1, 1, 2))
        assert (one == two).all()
        assert (one != other).any()

    def test_a_square_worked_by_hand(self) -> None:
        """Radius 10 gives half side 9: around (32, 32) the square covers 23..41; pixel 24 is full, 21 is empty."""
        picture = np.asarray(world.paint((world.Drawn(Thing("red", "square"), 32.0, 32.0, 10.0),)))
        assert picture.shape == (64, 64, 3)
        assert tuple(picture[32, 24]) == tuple(picture[32, 39]) == world.COLOURS["red"]
        assert tuple(picture[32, 21]) == tuple(picture[20, 32]) == world.BACKGROUND


def test_the_world_needs_no_torch() -> None:
    code = "import sys, diffusion.tiny, diffusion.tiny.reward; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
