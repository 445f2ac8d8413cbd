"""Differences between the pictures of one prompt."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch.testing import assert_close

from diffusion.diversity import as_features, group_diversity, small_copy


def test_by_hand():
    """Group 7: rows 0, 0.6 and 1 in both features: distances 0.6, 1 and 0.4, mean 2/3. Group 2: one row."""
    features = torch.tensor([[0.0, 0.0], [0.6, 0.6], [1.0, 1.0], [0.3, 0.3]])
    found = group_diversity(features, torch.tensor([7, 7, 7, 2]))
    assert math.isnan(found[0])
    assert_close(found[1], torch.tensor(2 / 3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_black_and_white_are_one_apart_and_equal_pictures_zero():
    black, white = Image.new("RGB", (64, 64)), Image.new("L", (16, 16), 255)
    features = as_features([small_copy(black), small_copy(white), small_copy(black), small_copy(black)])
    assert_close(group_diversity(features, torch.tensor([0, 0, 1, 1])), torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_independent_noise_pictures():
    """Uniform numbers differ by sqrt(1/6) = 0.408 in root mean square."""
    copies = [
        bytes(torch.randint(0, 256, (32 * 32 * 3,), generator=torch.Generator().manual_seed(k)).tolist())
        for k in (0, 1)
    ]
    assert_close(
        float(group_diversity(as_features(copies), torch.zeros(2, dtype=torch.int64))), 0.408, atol=0.01, rtol=0
    )
