"""Rewards of pictures that need no model: size as a JPEG file, brightness, contrast, sharpness, colourfulness.

Luma is ITU-R BT.601's 0.299 R + 0.587 G + 0.114 B, as a share of white: 0 is black, 1 is white.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

KILOBYTE = 1000


def jpeg_size(*, images: Sequence[Image], quality: int = 95, **columns: object) -> list[float]:
    """Size of each picture as a JPEG file, in kB (1000 bytes); detail and noise make it larger.

    Args:
        images: pictures.
        quality: of the encoder, 1 .. 95.
        columns: not used.

    References:
        Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv:2305.13301, section 5.
    """
    return [_jpeg_bytes(image, quality) / KILOBYTE for image in images]


def jpeg_incompressibility(*, images: Sequence[Image], quality: int = 95, **columns: object) -> list[float]:
    """JPEG size in kB: rewards pictures that are hard to compress. See `jpeg_size`."""
    return jpeg_size(images=images, quality=quality)


def jpeg_compressibility(*, images: Sequence[Image], quality: int = 95, **columns: object) -> list[float]:
    """Minus the JPEG size in kB: rewards pictures that compress well. See `jpeg_size`.

    Note:
        DDPO uses -kB, Flow-GRPO -kB / 500; set the reward's `weight` for another unit.
    """
    return [-size for size in jpeg_size(images=images, quality=quality)]


def brightness(*, images: Sequence[Image], **columns: object) -> list[float]:
    """Mean luma, in [0, 1]; 1 is an all-white picture."""
    return [float(_luma(image).mean()) for image in images]


def contrast(*, images: Sequence[Image], **columns: object) -> list[float]:
    """Standard deviation of the luma (population), in [0, 0.5]; 0.5 is half black, half white."""
    return [float(_luma(image).std()) for image in images]


def sharpness(*, images: Sequence[Image], **columns: object) -> list[float]:
    """Mean absolute luma difference between neighbours, horizontal and vertical ones together, in [0, 1].

    1 is a chessboard of single black and white pixels, 0 a plain picture. It depends on the resolution.
    """
    return [_mean_step(_luma(image)) for image in images]


def colourfulness(*, images: Sequence[Image], **columns: object) -> list[float]:
    """How strong and how different a picture's colours are; 0 is grey, about 0.4 vivid. Large flat areas count, too.

        M = sqrt(std(rg)^2 + std(yb)^2) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2),   rg = R - G,  yb = (R + G) / 2 - B

    over all pixels, with R, G, B in [0, 1] (the paper's are in [0, 255], so its numbers are 255 times as large).

    References:
        Hasler and Süsstrunk, "Measuring colourfulness in natural images", Human Vision and Electronic Imaging 2003.
    """
    return [_colourfulness(image) for image in images]


def _jpeg_bytes(image: Image, quality: int) -> int:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=quality)
    return buffer.tell()


def _luma(image: Image) -> Float[np.ndarray, "h w"]:
    return np.asarray(image.convert("RGB").convert("L"), dtype=np.float32) / 255


def _colourfulness(image: Image) -> float:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64) / 255, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread, middle = opponents.std(axis=(1, 2)), opponents.mean(axis=(1, 2))
    return float(np.hypot(*spread) + 0.3 * np.hypot(*middle))


def _mean_step(luma: Float[np.ndarray, "h w"]) -> float:
    steps = [np.abs(np.diff(luma, axis=axis)) for axis in (0, 1)]
    pairs = sum(step.size for step in steps)
    return float(sum(step.sum() for step in steps) / pairs) if pairs else 0.0
