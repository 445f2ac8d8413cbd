"""Rewards of pictures on pictures whose numbers are known."""

import io

import numpy as np
import pytest
from PIL import Image

from align.rewards.image import (
    brightness,
    colourfulness,
    contrast,
    jpeg_compressibility,
    jpeg_incompressibility,
    jpeg_size,
    sharpness,
)


def grey(values):
    return Image.fromarray(np.array(values, dtype=np.uint8)).convert("RGB")


WHITE, BLACK = grey([[255] * 8] * 8), grey([[0] * 8] * 8)
HALVES = grey([[0] * 4 + [255] * 4] * 8)
CHESS = grey([[255 * ((i + j) % 2) for j in range(8)] for i in range(8)])


def noise(side=32, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_brightness_by_hand():
    """Pure red has luma 0.299, green 0.587, blue 0.114; PIL rounds to 1/255."""
    assert brightness(images=[WHITE, BLACK, HALVES]) == pytest.approx([1.0, 0.0, 0.5])
    colours = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert brightness(images=colours) == pytest.approx([0.299, 0.587, 0.114], abs=1 / 255)


def test_contrast_by_hand():
    """Half 0 and half 1: mean 0.5, every deviation 0.5."""
    assert contrast(images=[WHITE, HALVES, CHESS]) == pytest.approx([0.0, 0.5, 0.5])


def test_sharpness_by_hand():
    """HALVES: one of seven horizontal steps in each of 8 rows, none of 56 vertical ones: 8 / 112. CHESS: all of
    them."""
    assert sharpness(images=[WHITE, HALVES, CHESS]) == pytest.approx([0.0, 8 / 112, 1.0])
    assert sharpness(images=[grey([[9]])]) == [0.0]


def test_colourfulness_by_hand():
    """Grey has no colour. All red: rg = 1, yb = 1/2 everywhere, so no spread, and 0.3 sqrt(1 + 1/4). Half red, half
    white: means 1/2 and 1/4, deviations the same, so (1 + 0.3) sqrt(1/4 + 1/16)."""
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    half = WHITE.copy()
    half.paste(red.crop((0, 0, 4, 8)), (0, 0))
    expected = [0.0, 0.0, 0.3 * 1.25**0.5, 1.3 * 0.3125**0.5]
    assert colourfulness(images=[WHITE, CHESS, red, half]) == pytest.approx(expected)


def test_jpeg_size_is_that_of_the_file_in_units_of_1000_bytes():
    image = noise()
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    assert jpeg_size(images=[image]) == [len(buffer.getvalue()) / 1000]
    assert jpeg_size(images=[image], quality=10)[0] < jpeg_size(images=[image])[0]


def test_noise_is_hard_to_compress_and_the_signs_say_so():
    images = [noise(64), WHITE.resize((64, 64))]
    size = jpeg_size(images=images)
    assert size[0] > 3 * size[1]
    assert jpeg_incompressibility(images=images) == size
    assert jpeg_compressibility(images=images) == [-number for number in size]


@pytest.mark.parametrize(
    "reward", [jpeg_size, jpeg_compressibility, jpeg_incompressibility, brightness, contrast, sharpness, colourfulness]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_any_mode_any_number_of_pictures_and_the_signature_of_rewards(reward, mode):
    images = [noise(16, seed).convert(mode) for seed in range(3)]
    scores = reward(images=images, prompts=["a"] * 3, some_column=[1, 2, 3])
    assert len(scores) == 3
    assert all(isinstance(score, float) for score in scores)
    assert reward(images=[]) == []
