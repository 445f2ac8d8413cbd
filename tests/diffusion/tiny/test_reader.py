"""The reader against pictures whose content is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from diffusion.tiny import reader, world
from diffusion.tiny.world import Drawn, Thing

Painted = tuple[str, str, float, float]
painted = st.tuples(
    st.sampled_from(list(world.COLOURS)), st.sampled_from(world.SHAPES), st.floats(20, 44), st.floats(20, 44)
)


def blank() -> np.ndarray:
    return np.full((64, 64, 3), world.BACKGROUND, dtype=np.uint8)


class TestColourMap:
    def test_palette_background_and_strange_pixels(self) -> None:
        """One pixel each: the background, the five colours in order, and black, which no colour's direction matches."""
        pixels = np.array([[world.BACKGROUND, *world.COLOURS.values(), (0, 0, 0)]], dtype=np.uint8)
        labels, _ = reader.colour_map(pixels)
        assert labels.tolist() == [[-1, 0, 1, 2, 3, 4, -2]]

    @pytest.mark.parametrize("name", world.COLOURS)
    def test_mixtures_keep_their_colour(self, name: str) -> None:
        """Background + a (colour - background): the colour from a = 1/2 on, else background; a is the coverage."""
        mixtures = (0.1, 0.4, 0.6, 0.8, 1.0)
        white, colour = np.array(world.BACKGROUND, float), np.array(world.COLOURS[name], float)
        pixels = np.array([[white + a * (colour - white) for a in mixtures]]).round().astype(np.uint8)
        k = list(world.COLOURS).index(name)
        labels, coverage = reader.colour_map(pixels)
        assert labels.tolist() == [[-1, -1, k, k, k]]
        assert coverage[0] == pytest.approx(mixtures, abs=0.01)


class TestShape:
    @pytest.mark.parametrize("half", [3.0, 4.5, 6.25])
    def test_a_square_with_partly_covered_rims(self, half: float) -> None:
        """Coverage of a pixel by the interval [32 - half, 32 + half], in x times in y: the ideal square itself."""
        edges = np.arange(65)
        covered = np.clip(np.minimum(edges[1:], 32 + half) - np.maximum(edges[:-1], 32 - half), 0, 1)
        name, overlap = reader.shape_of(np.outer(covered, covered))
        assert name == "square"
        assert overlap > 0.97

    def test_a_circle_is_no_square(self) -> None:
        """Equal area: half side s = r sqrt(pi) / 2. The overlap is the larger for the circle."""
        y, x = np.mgrid[:64, :64] - 31.5
        assert reader.shape_of(np.clip(10 - np.hypot(x, y) + 0.5, 0, 1))[0] == "circle"


class TestObjects:
    def test_a_rectangle_worked_by_hand(self) -> None:
        """Rows 10..19, columns 20..29: centre (25, 15), area 100, side 10 = 2 * 0.9 * radius, so radius 5.56."""
        pixels = blank()
        pixels[10:20, 20:30] = world.COLOURS["blue"]
        (seen,) = reader.read(Image.fromarray(pixels))
        assert (seen.colour, seen.shape) == ("blue", "square")
        assert (seen.x, seen.y, seen.area) == pytest.approx((25.0, 15.0, 100))
        assert seen.radius == pytest.approx(10 / 1.8)
        assert seen.overlap == pytest.approx(1.0)

    def test_specks_are_no_objects(self) -> None:
        pixels = blank()
        pixels[10:13, 10:14] = world.COLOURS["red"]  # 12 pixels, below MIN_AREA = 14
        assert reader.read(Image.fromarray(pixels)) == ()

    def test_two_regions_of_one_colour_are_two_objects(self) -> None:
        pixels = blank()
        pixels[10:20, 10:20] = world.COLOURS["green"]
        pixels[10:20, 30:45] = world.COLOURS["green"]
        assert [seen.area for seen in reader.read(Image.fromarray(pixels))] == pytest.approx([150, 100])

    def test_an_object_of_no_known_colour_is_seen(self) -> None:
        pixels = blank()
        pixels[10:20, 10:20] = (0, 0, 0)
        assert [seen.colour for seen in reader.read(Image.fromarray(pixels))] == ["unknown"]

    def test_a_long_bar_has_no_shape(self) -> None:
        pixels = blank()
        pixels[10:14, 5:60] = world.COLOURS["red"]
        assert reader.read(Image.fromarray(pixels))[0].shape == "unknown"

    def test_an_empty_picture(self) -> None:
        assert reader.read(Image.fromarray(blank())) == ()

    def test_a_picture_of_another_size_is_brought_to_64(self) -> None:
        pixels = blank()
        pixels[10:20, 20:30] = world.COLOURS["blue"]
        large = Image.fromarray(pixels).resize((256, 256), Image.Resampling.NEAREST)
        assert reader.read(large) == reader.read(Image.fromarray(pixels))

    @given(picture=painted, radius=st.floats(5, 13))
    def test_what_was_painted_is_read(self, picture: Painted, radius: float) -> None:
        check(picture, radius, blur=0.0)

    @given(picture=painted, radius=st.floats(5, 13))
    def test_a_slight_blur_does_no_harm(self, picture: Painted, radius: float) -> None:
        """As after an autoencoder."""
        check(picture, radius, blur=0.7)


def check(picture: Painted, radius: float, blur: float) -> None:
    colour, shape, x, y = picture
    image = world.paint((Drawn(Thing(colour, shape), x, y, radius),))
    (seen,) = reader.read(image.filter(ImageFilter.GaussianBlur(blur)))
    assert (seen.colour, seen.shape) == (colour, shape)
    assert seen.x == pytest.approx(x, abs=0.7)
    assert seen.y == pytest.approx(y, abs=0.7)
    assert seen.radius == pytest.approx(radius, abs=0.6)
