"""How different the pictures of one prompt are: a policy that draws one picture for everything has lost something.

    d(prompt) = mean over pairs of its pictures of  sqrt(mean over pixels and channels of (a - b)^2)

on pictures reduced to 32 x 32 with values in [0, 1]. 0: all alike; two independent noise pictures: 0.41; black and
white: 1. It sees layout and colour, not meaning, and needs no network; compare it between checkpoints on the same
prompts and seeds, not between data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_codes

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 32
"""Pixels along a side of what is compared."""


def small_copy(image: Image) -> bytes:
    """The picture as SIDE x SIDE x 3 bytes, for `distances`."""
    from PIL.Image import Resampling

    return image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX).tobytes()


def as_features(copies: Sequence[bytes]) -> Float[Tensor, "n d"]:
    """Small copies as rows in [0, 1]."""
    joined = torch.frombuffer(bytearray(b"".join(copies)), dtype=torch.uint8)
    return joined.reshape(len(copies), -1).float() / 255


def group_diversity(features: Float[Tensor, "n d"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "g"]:
    """Mean distance between two different pictures of a group, by group in order of id; NaN for a group of one.

    Args:
        features: one row per picture; the distance is the root of the mean squared difference.
        group_ids: equal ids answer the same prompt.
    """
    ids, groups = group_codes(group_ids)
    found = []
    for group in range(groups):
        rows = features[ids == group].double()
        pairs = torch.pdist(rows) / features.shape[1] ** 0.5
        found.append(pairs.mean() if len(pairs) else rows.new_tensor(torch.nan))
    return torch.stack(found)
