"""Read a picture of the drawn world back: pixels -> objects with colour, shape, centre and size.

Three steps, none of them learnt, so that the reward cannot be fooled the way a network can:

1. *Colour of a pixel.* An antialiased or slightly blurred pixel is a mixture  p = w + a (c - w)  of the background w
   and a palette colour c. The *direction* of p - w therefore tells the colour whatever the mixture a, where the
   nearest palette colour would call the pink edge of a red circle purple. A pixel belongs to the colour of largest
   cosine, if that cosine is at least `MIN_COSINE` and the mixture a lies between `MIN_MIX` and `MAX_MIX`.
2. *Objects.* Connected regions (8 neighbours) of one colour with at least `MIN_AREA` pixels. Regions that differ clearly
   from the background but match no colour are objects too, of colour "unknown": they are never wanted, so they count as extra.
3. *Shape.* The region is compared with an ideal circle, square and triangle of the same area and the same centroid; the
   largest overlap (intersection over union) wins, and below `MIN_OVERLAP` the shape is "unknown": a melted blob is nothing.
"""

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from jaxtyping import Bool, Int, Shaped
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
        area: pixels.
        radius: pixels; the radius at which the painter draws this shape with this area.
        overlap: intersection over union with the ideal shape, 0..1.
    """

    colour: str
    shape: str
    x: float
    y: float
    area: int
    radius: float
    overlap: float


def colour_map(pixels: Shaped[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """Index of the palette colour of each pixel; -1 background, -2 something else.

    Args:
        pixels: 8-bit levels.
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
    return labels


def shape_of(region: Bool[np.ndarray, "h w"]) -> tuple[str, float]:
    """The ideal shape that overlaps a region best, and its intersection over union.

    The ideal has the region's area and centroid, so the comparison needs no search; pixels count as inside by their centre.
    """
    ys, xs = np.nonzero(region)
    area, x, y = len(xs), xs.mean(), ys.mean()
    grid_y, grid_x = np.ogrid[: region.shape[0], : region.shape[1]]
    dx, dy = grid_x - x, grid_y - y
    ideals = {
        "circle": dx**2 + dy**2 <= area / pi,
        "square": np.maximum(np.abs(dx), np.abs(dy)) <= sqrt(area) / 2,
        "triangle": _triangle(dx, dy, sqrt(area / UNIT_AREA["triangle"]) * world.TRIANGLE_CIRCUMRADIUS),
    }
    overlaps = {name: _overlap(region, ideal) for name, ideal in ideals.items()}
    best = max(overlaps, key=lambda name: overlaps[name])
    return (best if overlaps[best] >= MIN_OVERLAP else UNKNOWN), overlaps[best]


def _triangle(dx: np.ndarray, dy: np.ndarray, circumradius: float) -> np.ndarray:
    """Upright equilateral triangle around its centroid: below the two slopes, above the base."""
    return (dy <= circumradius / 2) & (sqrt(3) * np.abs(dx) - dy <= circumradius)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def read(image: Image.Image) -> tuple[Seen, ...]:
    """All objects of a picture, largest first.

    Args:
        image: RGB; a picture of another size than 64 x 64 is resized.
    """
    if image.size != (world.SIDE, world.SIDE):
        image = image.resize((world.SIDE, world.SIDE), Image.Resampling.BOX)
    labels = colour_map(np.asarray(image.convert("RGB")))
    seen = []
    for index in np.unique(labels[labels != -1]):
        name = UNKNOWN if index == -2 else _NAMES[index]
        seen.extend(_objects(labels == index, name))
    return tuple(sorted(seen, key=lambda item: -item.area))


def _objects(mask: Bool[np.ndarray, "h w"], colour: str) -> list[Seen]:
    """Connected regions of one colour, specks left out."""
    regions, _ = ndimage.label(mask, structure=_NEIGHBOURS)
    areas = np.bincount(regions.ravel())
    return [_seen(regions == k, colour) for k in range(1, len(areas)) if areas[k] >= MIN_AREA]


def _seen(region: Bool[np.ndarray, "h w"], colour: str) -> Seen:
    ys, xs = np.nonzero(region)
    shape, overlap = shape_of(region)
    radius = sqrt(len(xs) / UNIT_AREA.get(shape, pi))
    return Seen(colour, shape, float(xs.mean()) + 0.5, float(ys.mean()) + 0.5, len(xs), radius, overlap)
