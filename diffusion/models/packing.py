"""Between pictures of latents and the token rows that some transformers take: each 2 x 2 square is one token."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

PATCH = 2
"""Latent pixels along a side of a token."""


def pack(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n tokens features"]:
    """Tokens in reading order, tokens = h w / 4, features = 4 c.

    A token's features go channel by channel, and within a channel over the square in reading order.
    """
    n, c, h, w = latents.shape
    squares = latents.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // PATCH**2, c * PATCH**2)


def unpack(tokens: Float[Tensor, "n tokens features"], height: int, width: int) -> Float[Tensor, "n c h w"]:
    """Inverse of `pack`.

    Args:
        tokens: rows of tokens.
        height: h, in latent pixels.
        width: w.
    """
    n, _, features = tokens.shape
    c = features // PATCH**2
    squares = tokens.reshape(n, height // PATCH, width // PATCH, c, PATCH, PATCH)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(n, c, height, width)
