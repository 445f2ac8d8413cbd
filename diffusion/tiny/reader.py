"""Read a picture of the drawn world back: pixels -> objects with colour, shape, centre and size.

Three steps, none of them learnt, so that the reward cannot be fooled the way a network can:

1. *Colour of a pixel.* An antialiased or slightly blurred pixel is a mixture  p = w + a (c - w)  of the background w
   and a palette colour c. The *direction* of p - w therefore tells the colour whatever the mixture a, where the
   nearest palette colour would call the pink edge of a red circle purple. A pixel belongs to the colour of largest
   cosine, if that cosine is at least `MIN_COSINE` and the mixture a lies between `MIN_MIX` and `MAX_MIX`.
2. *Objects.* Connected regions (8 neighbours) of one colour with at least `MIN_AREA` pixels. Regions that differ
   clearly from the background but match no colour are objects too, of colour "unknown": never wanted, always extra.
3. *Shape.* The region is compared with an ideal circle, square and triangle of the same area and the same centroid;
   the largest overlap (intersection over union) wins. Below `MIN_OVERLAP` the shape is "unknown": a melted blob.
   Area, centroid and overlap use the mixture a as the *coverage* of a pixel, so a rim counts in part and the corners of
   a small square are not lost to rounding.
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from PIL import Image
from scipy import ndimage

from diffusion.tiny import world

MIN_COSINE = 0.93
MIN_MIX = 0.5
MAX_MIX = 1.4
MIN_AREA = 14
UNKNOWN_DISTANCE = 90.0  # Euclidean, in 8-bit levels; an unknown pixel is at least this far from the background
MIN_OVERLAP = 0.8
UNKNOWN = "unknown"

_NAMES = tuple(world.COLOURS)
_WHITE = np.array(world.BACKGROUND, dtype=np.float32)
_TOWARDS = np.array([world.COLOURS[name] for name in _NAMES], dtype=np.float32) - _WHITE
_LENGTHS = np.linalg.norm(_TOWARDS, axis=1)
_NEIGHBOURS = np.ones((3, 3), dtype=int)

# Area of a shape of radius 1 (see `world.outline`).
UNIT_AREA = {
    "circle": pi,
    "square": 4 * world.SQUARE_HALF_SIDE**2,
    "triangle": 0.75 * sqrt(3) * world.TRIANGLE_CIRCUMRADIUS**2,
}


@dataclass(frozen=True)
class Seen:
    """One object in a picture.

    Attributes:
        colour: a name of `world.COLOURS`, or "unknown".
        shape: a name of `world.SHAPES`, or "unknown".
        x, y: centroid in pixels, x to the right, y down.
        area: covered pixels; a rim pixel counts in part.
        radius: pixels; the radius at which the painter draws this shape with this area.
        overlap: intersection over union with the ideal shape, 0..1.
    """

    colour: str
    shape: str
    x: float
    y: float
    area: float
    radius: float
    overlap: float


def colour_map(pixels: Shaped[np.ndarray, "h w 3"]) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Colour and coverage of each pixel.

    Args:
        pixels: 8-bit levels.

    Returns:
        The index of the palette colour, -1 for background, -2 for something else; and the mixture a, 0..1, with which
        the pixel holds the colour of its direction, whether or not that is enough to belong to it.
    """
    away = pixels.astype(np.float32) - _WHITE
    distance = np.linalg.norm(away, axis=-1)
    along = away @ _TOWARDS.T  # [h w colours]
    cosine = along / (np.maximum(distance, 1e-6)[..., None] * _LENGTHS)
    best = cosine.argmax(axis=-1)
    mix = np.take_along_axis(along / _LENGTHS**2, best[..., None], axis=-1)[..., 0]
    matches = np.take_along_axis(cosine, best[..., None], axis=-1)[..., 0] >= MIN_COSINE
    labels = np.where(distance >= UNKNOWN_DISTANCE, -2, -1)
    labels[matches] = np.where(mix < MIN_MIX, -1, np.where(mix > MAX_MIX, -2, best))[matches]
    return labels, np.clip(mix, 0.0, 1.0)


def shape_of(coverage: Float[np.ndarray, "h w"]) -> tuple[str, float]:
    """The ideal shape that overlaps an object best, and its intersection over union.

    The ideal has the object's area and centroid, so nothing is searched. Both are coverages in 0..1 (a rim pixel of the
    ideal is covered by how far its centre lies inside the rim), and  IoU = sum min(a, b) / sum max(a, b).
    """
    area, x, y = _moments(coverage)
    grid_y, grid_x = np.ogrid[: coverage.shape[0], : coverage.shape[1]]
    dx, dy = grid_x - x, grid_y - y
    inradius = sqrt(area / UNIT_AREA["triangle"]) * world.TRIANGLE_CIRCUMRADIUS / 2
    half = sqrt(area) / 2
    # Signed distance to the rim, positive inside; of a polygon, the least over its sides.
    inside = {
        "circle": sqrt(area / pi) - np.hypot(dx, dy),
        "square": half - np.maximum(np.abs(dx), np.abs(dy)),
        "triangle": inradius - np.maximum(dy, sqrt(0.75) * np.abs(dx) - dy / 2),
    }
    overlaps = {name: _overlap(coverage, np.clip(depth + 0.5, 0.0, 1.0)) for name, depth in inside.items()}
    best = max(overlaps, key=lambda name: overlaps[name])
    return (best if overlaps[best] >= MIN_OVERLAP else UNKNOWN), overlaps[best]


def _moments(coverage: Float[np.ndarray, "h w"]) -> tuple[float, float, float]:
    """Area, and the centroid in pixel indices."""
    area = float(coverage.sum())
    x = float(coverage.sum(axis=0) @ np.arange(coverage.shape[1])) / area
    y = float(coverage.sum(axis=1) @ np.arange(coverage.shape[0])) / area
    return area, x, y


def _overlap(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]) -> float:
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def read(image: Image.Image) -> tuple[Seen, ...]:
    """All objects of a picture, largest first.

    Args:
        image: RGB; a picture of another size than 64 x 64 is resized.
    """
    if image.size != (world.SIDE, world.SIDE):
        image = image.resize((world.SIDE, world.SIDE), Image.Resampling.BOX)
    labels, coverage = colour_map(np.asarray(image.convert("RGB")))
    seen = []
    for index in np.unique(labels[labels != -1]):
        name = UNKNOWN if index == -2 else _NAMES[index]
        seen.extend(_objects(labels == index, coverage, name))
    return tuple(sorted(seen, key=lambda item: -item.area))


def _objects(mask: Bool[np.ndarray, "h w"], coverage: Float[np.ndarray, "h w"], colour: str) -> list[Seen]:
    """Connected regions of one colour, specks left out, each with the rim of pixels around it."""
    # The count alone comes back only where an output array is given.
    regions, _ = cast("tuple[np.ndarray, int]", ndimage.label(mask, structure=_NEIGHBOURS))
    sizes = np.bincount(regions.ravel())
    kept = [regions == k for k in range(1, len(sizes)) if sizes[k] >= MIN_AREA]
    return [_seen(coverage * ndimage.binary_dilation(region, structure=_NEIGHBOURS), colour) for region in kept]


def _seen(coverage: Float[np.ndarray, "h w"], colour: str) -> Seen:
    area, x, y = _moments(coverage)
    shape, overlap = shape_of(coverage)
    return Seen(colour, shape, x + 0.5, y + 0.5, area, sqrt(area / UNIT_AREA.get(shape, pi)), overlap)
