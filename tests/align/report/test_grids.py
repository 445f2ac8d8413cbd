"""Pictures laid out for people."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from align.report.grids import MARGIN, contact_sheet, data_uri, evenly, progress_strip


def test_a_contact_sheet_by_hand():
    """Three tiles of 10 pixels in two columns, no captions: width 12 + 2 * (10 + 12) = 56, so is the height."""
    colors = ("#ff0000", "#00ff00", "#0000ff")
    sheet = contact_sheet([Image.new("RGB", (10, 10), color) for color in colors], columns=2)
    assert sheet.size == (56, 56)
    middle, next_tile = MARGIN + 5, MARGIN + 10 + MARGIN + 5
    assert sheet.getpixel((middle, middle)) == (255, 0, 0)
    assert sheet.getpixel((next_tile, middle)) == (0, 255, 0)
    assert sheet.getpixel((middle, next_tile)) == (0, 0, 255)
    assert sheet.getpixel((next_tile, next_tile)) == (255, 255, 255)


def test_captions_are_drawn_and_long_ones_stay_in_their_tile():
    pictures = [Image.new("RGB", (40, 40), "#ffffff")] * 2
    sheet = contact_sheet(pictures, columns=2, captions=["word " * 50, ""])
    right = sheet.crop((MARGIN + 40 + 1, 0, sheet.width, sheet.height))
    left = sheet.crop((0, MARGIN + 40, MARGIN + 40, sheet.height))
    assert right.getextrema() == ((255, 255),) * 3
    assert left.getextrema() != ((255, 255),) * 3


def test_a_strip_leaves_a_missing_tile_empty():
    red = Image.new("RGB", (16, 16), "#ff0000")
    strip = progress_strip([[red, None]], prompts=["p"], steps=[0, 10], tile=16)
    assert strip.size == (MARGIN + 2 * (16 + MARGIN), MARGIN + 17 + 16 + MARGIN + 17)
    assert strip.getpixel((MARGIN + 8, MARGIN + 17 + 8)) == (255, 0, 0)
    assert strip.getpixel((MARGIN + 16 + MARGIN + 8, MARGIN + 17 + 8)) == (255, 255, 255)


@pytest.mark.parametrize(("pictures", "columns", "captions"), [(0, 1, ()), (1, 0, ()), (2, 2, ("only one",))])
def test_sheets_that_cannot_be_are_explained(pictures, columns, captions):
    with pytest.raises(ValueError, match="expected"):
        contact_sheet([Image.new("RGB", (4, 4))] * pictures, columns=columns, captions=captions)


def test_a_strip_of_uneven_rows_is_explained():
    with pytest.raises(ValueError, match="one picture per step"):
        progress_strip([[None]], prompts=["p"], steps=[0, 1])


@given(values=st.lists(st.integers(0, 500), max_size=60), count=st.integers(1, 12))
def test_evenly_keeps_both_ends_and_the_order(values, count):
    found = evenly(values, count)
    assert len(found) == min(count, len(set(values)))
    assert found == sorted(set(found))
    assert set(found) <= set(values)
    if values and count > 1:
        assert found[0] == min(values)
        assert found[-1] == max(values)


@pytest.mark.parametrize(("side", "kind"), [(64, "png"), (512, "jpeg")])
def test_small_pictures_stay_lossless_and_large_ones_are_reduced(tmp_path, side, kind):
    path = tmp_path / "picture.png"
    Image.new("RGB", (side, side), "#123456").save(path)
    uri = data_uri(path, 160)
    assert uri.startswith(f"data:image/{kind};base64,")
    decoded = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert decoded.size == (min(side, 160),) * 2


def test_a_damaged_picture_is_no_error(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"not a picture")
    assert data_uri(path, 100) is None
