"""Pictures laid out for people: contact sheets, progress strips, and pictures inside an HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PAPER, INK, FAINT = "#ffffff", "#1c1e21", "#686d76"
LOSSLESS_UP_TO = 128  # pixels; small pictures stay PNG, a JPEG would blur what little they have
MARGIN = 12
LINE = 17  # pixels of a line of caption


def data_uri(path: Path, side: int) -> str | None:
    """A picture file as a `data:` address of at most `side` pixels; None if the file cannot be read."""
    from PIL import Image

    try:
        picture = thumbnail(open_picture(path), side)
    except (OSError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    small = max(picture.size) <= LOSSLESS_UP_TO
    if small:
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.save(buffer, format="JPEG", quality=87)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def open_picture(path: Path) -> Image:
    """A picture file in RGB, read completely and closed.

    Raises:
        OSError: the file is missing or no picture.
    """
    from PIL import Image

    with Image.open(path) as opened:
        return opened.convert("RGB")


def thumbnail(picture: Image, side: int) -> Image:
    """A copy in RGB whose longer side is at most `side` pixels; never enlarged."""
    from PIL.Image import Resampling

    copy = picture.convert("RGB")
    copy.thumbnail((side, side), Resampling.LANCZOS)
    return copy


def evenly(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the sorted distinct values, evenly spaced by position, first and last always among them."""
    distinct = sorted(set(values))
    if len(distinct) <= count:
        return distinct
    if count < 2:
        return distinct[-count:] if count else []
    return [distinct[round(i * (len(distinct) - 1) / (count - 1))] for i in range(count)]


def contact_sheet(
    pictures: Sequence[Image], *, columns: int, captions: Sequence[str] = (), tile: int | None = None
) -> Image:
    """Pictures row by row with a line of text under each.

    Args:
        pictures: at least one.
        columns: tiles in a row.
        captions: none, or one for each picture; long ones are shortened.
        tile: side of a tile in pixels; None takes the largest side of any picture.

    Raises:
        ValueError: no pictures, or captions of another number.
    """
    _check(pictures, captions, columns)
    side = tile or max(max(picture.size) for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = _sheet(columns, rows, side, LINE if captions else 0)
    step = side + MARGIN, side + MARGIN + (LINE if captions else 0)
    for number, picture in enumerate(pictures):
        corner = MARGIN + number % columns * step[0], MARGIN + number // columns * step[1]
        _place(sheet, picture, corner, side)
        if captions:
            _write(sheet, captions[number], (corner[0], corner[1] + side + 2), side, FAINT)
    return sheet


def progress_strip(
    rows: Sequence[Sequence[Image | None]], *, prompts: Sequence[str], steps: Sequence[int], tile: int = 128
) -> Image:
    """The same prompts and seeds over training: a row per prompt, a column per step; None leaves a tile empty.

    Raises:
        ValueError: rows and prompts, or tiles and steps, do not agree in number.
    """
    if len(rows) != len(prompts) or any(len(row) != len(steps) for row in rows) or not rows or not steps:
        raise ValueError(
            f"expected one row per prompt and one picture per step, found {len(rows)} rows of "
            f"{sorted({len(row) for row in rows})} pictures for {len(prompts)} prompts and {len(steps)} steps."
        )
    sheet = _sheet(len(steps), len(rows), tile, LINE, top=LINE)
    step = tile + MARGIN, tile + MARGIN + LINE
    for column, number in enumerate(steps):
        _write(sheet, f"step {number}", (MARGIN + column * step[0], MARGIN - 2), tile, INK)
    for row, pictures in enumerate(rows):
        top = MARGIN + LINE + row * step[1]
        for column, picture in enumerate(pictures):
            if picture is not None:
                _place(sheet, picture, (MARGIN + column * step[0], top), tile)
        _write(sheet, prompts[row], (MARGIN, top + tile + 2), len(steps) * step[0] - MARGIN, FAINT)
    return sheet


def _check(pictures: Sequence[Image], captions: Sequence[str], columns: int) -> None:
    if not pictures:
        raise ValueError("expected at least one picture for a contact sheet, found none.")
    if columns < 1:
        raise ValueError(f"expected columns >= 1, found {columns}.")
    if captions and len(captions) != len(pictures):
        raise ValueError(f"expected one caption per picture, found {len(captions)} for {len(pictures)} pictures.")


def _sheet(columns: int, rows: int, side: int, line: int, top: int = 0) -> Image:
    from PIL import Image

    size = MARGIN + columns * (side + MARGIN), MARGIN + top + rows * (side + MARGIN + line)
    return Image.new("RGB", size, PAPER)


def _place(sheet: Image, picture: Image, corner: tuple[int, int], side: int) -> None:
    """Paste a picture into the middle of its tile; small ones are enlarged to fill it."""
    from PIL.Image import Resampling

    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    fitted = picture.convert("RGB").resize(size, Resampling.LANCZOS)
    sheet.paste(fitted, (corner[0] + (side - size[0]) // 2, corner[1] + (side - size[1]) // 2))


def _write(sheet: Image, text: str, corner: tuple[int, int], width: int, color: str) -> None:
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(sheet).text(corner, _shorten(" ".join(text.split()), width, font), fill=color, font=font)


def _shorten(text: str, width: int, font: FreeTypeFont | ImageFont) -> str:
    """The text, or as much of its beginning as fits into `width` pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
