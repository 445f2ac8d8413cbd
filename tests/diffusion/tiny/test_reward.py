"""The checkable reward, worked by hand and on rendered scenes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion.tiny import reward, slips, world
from diffusion.tiny.reader import Seen

EVERY = [spec for kind in world.CLASSES for spec in world.specs(kind)]


def seen(colour: str, shape: str, x: float = 32.0, y: float = 32.0, radius: float = 9.0) -> Seen:
    return Seen(colour, shape, x, y, area=200, radius=radius, overlap=1.0)


class TestJudge:
    def test_the_example_of_the_module(self) -> None:
        """Two colours, one of two shapes, the count: 4 of 5."""
        verdict = reward.judge(
            world.parse("a red circle and a blue square"), [seen("red", "circle"), seen("blue", "unknown")]
        )
        assert verdict.score == pytest.approx(4 / 5)
        assert verdict.strict == 0.0

    def test_exchanged_colours_earn_colours_and_count_only(self) -> None:
        """Red circle and blue square wanted, blue circle and red square seen: colours 2, shapes 0, count 1 of 5."""
        verdict = reward.judge(
            world.parse("a red circle and a blue square"), [seen("blue", "circle"), seen("red", "square")]
        )
        assert verdict.score == pytest.approx(3 / 5)

    def test_an_extra_object_costs_the_count(self) -> None:
        verdict = reward.judge(world.parse("a red circle"), [seen("red", "circle"), seen("unknown", "unknown")])
        assert verdict.checks == {"colour0": True, "shape0": True, "count": False}

    def test_a_missing_object(self) -> None:
        """Three wanted, two seen: colours 2 and shapes 2 of 6, no count: 4 of 7."""
        assert reward.judge(world.parse("three red circles"), [seen("red", "circle")] * 2).score == pytest.approx(4 / 7)

    def test_nothing_seen(self) -> None:
        assert reward.judge(world.parse("a red circle left of a blue square"), []).score == 0.0

    def test_the_best_of_several_is_matched(self) -> None:
        """The red square is nearer in the list, the red circle is the wanted one; only the count fails."""
        verdict = reward.judge(world.parse("a red circle"), [seen("red", "square"), seen("red", "circle")])
        assert verdict.checks == {"colour0": True, "shape0": True, "count": False}

    @pytest.mark.parametrize(
        ("place", "x", "y", "holds"),
        [
            ("on the left", 16, 32, True),
            ("on the left", 28, 32, False),  # 4 pixels from the middle: not yet left
            ("on the left", 16, 10, False),  # more above than left
            ("on the right", 48, 32, True),
            ("at the top", 32, 16, True),
            ("at the bottom", 32, 16, False),
            ("at the bottom", 32, 48, True),
        ],
    )
    def test_places(self, place: str, x: float, y: float, holds: bool) -> None:
        verdict = reward.judge(world.parse(f"a red circle {place}"), [seen("red", "circle", x, y)])
        assert verdict.checks["placed"] is holds
        assert verdict.score == (1.0 if holds else 0.75)

    @pytest.mark.parametrize(
        ("relation", "dx", "dy", "holds"),
        [
            ("left of", -20, 3, True),
            ("right of", -20, 3, False),
            ("right of", 20, 3, True),
            ("above", 3, -20, True),
            ("below", 3, 20, True),
            ("below", 21, 20, False),
        ],
    )
    def test_relations(self, relation: str, dx: float, dy: float, holds: bool) -> None:
        spec = world.parse(f"a red circle {relation} a blue square")
        objects = [seen("blue", "square", 32, 32), seen("red", "circle", 32 + dx, 32 + dy)]
        assert reward.judge(spec, objects).checks["relation"] is holds

    @pytest.mark.parametrize(
        ("small", "large", "holds"), [(6, 12, True), (9, 9, False), (12, 6, False), (9, 11, False)]
    )
    def test_sizes(self, small: float, large: float, holds: bool) -> None:
        spec = world.parse("a large red circle and a small blue square")
        objects = [seen("red", "circle", radius=large), seen("blue", "square", radius=small)]
        assert reward.judge(spec, objects).checks["size"] is holds

    @given(spec=st.sampled_from(EVERY), other=st.sampled_from(EVERY), seed=st.integers(0, 10**6))
    def test_strict_is_score_one(self, spec: world.Spec, other: world.Spec, seed: int) -> None:
        (verdict,) = reward.verdicts([world.render(other, np.random.default_rng(seed))], [world.caption(spec)])
        assert verdict is not None
        assert 0.0 <= verdict.score <= 1.0
        assert (verdict.score == 1.0) == (verdict.strict == 1.0)


@pytest.mark.parametrize("kind", world.CLASSES)
def test_rendered_scenes_satisfy_their_captions(kind: str) -> None:
    """150 random scenes a class, all right."""
    rng = np.random.default_rng(0)
    choices = world.specs(kind)
    specs = [choices[rng.integers(len(choices))] for _ in range(150)]
    images = [world.render(spec, rng) for spec in specs]
    assert reward.shapes_strict(images=images, prompts=[world.caption(spec) for spec in specs]) == [1.0] * 150


@given(spec=st.sampled_from(EVERY), seed=st.integers(0, 10**6))
def test_near_misses_never_satisfy_the_caption(spec: world.Spec, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [world.render(miss, rng) for miss in slips.near_misses(spec)]
    prompts = [world.caption(spec)] * len(images)
    assert reward.shapes_strict(images=images, prompts=prompts) == [0.0] * len(images)
    scores = reward.shapes(images=images, prompts=prompts)
    assert all(score is not None and 0.3 < score < 1.0 for score in scores)


class TestSignature:
    def test_prompts_of_another_world_are_not_scored(self) -> None:
        images = [Image.new("RGB", (64, 64), world.BACKGROUND)] * 2
        assert reward.shapes(images=images, prompts=["a cat", "a red circle"]) == [None, 0.0]
        assert reward.shapes_strict(images=images, prompts=["a cat", "a red circle"], source=["x", "y"]) == [None, 0.0]

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(ValueError, match="1 pictures and 2 prompts"):
            reward.shapes(images=[Image.new("RGB", (64, 64))], prompts=["a red circle"] * 2)
