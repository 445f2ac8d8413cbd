"""What two systems lack of each other: the additive epsilon indicator, resample by resample. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.inspect.sweep.systems import System
from align.shaping.fronts import additive_epsilons


def epsilons(
    systems: Sequence[System], means: Float[Tensor, "r m k"], chosen: Sequence[Int[Tensor, "r s"]]
) -> Mapping[tuple[str, str], np.ndarray]:
    """How much must be added to every point of one system, so that it covers another: all ordered pairs.

        eps(A, B) = max over points b of B, min over points a of A, max_k (b_k - a_k)

    0 or less: A covers B, and neither direction at 0 or less: each has something that the other lacks. Of several
    trainings it is the mean over the pairs of their drawn seeds.

    Args:
        systems: what is compared.
        means: of all points in each resample, in the box; higher is better.
        chosen: drawn seeds of each system in each resample.

    Returns:
        (A, B) -> one number per resample.
    """
    found = {}
    for (a, own), (b, other) in permutations(zip(systems, chosen, strict=True), 2):
        per_seeds = torch.stack(
            [torch.stack([_epsilon(means, mine, theirs) for theirs in b.places]) for mine in a.places]
        )  # [seeds of A, seeds of B, r]
        resamples = torch.arange(len(means))
        drawn = per_seeds[own.unsqueeze(2), other.unsqueeze(1), resamples.reshape(-1, 1, 1)]
        found[a.name, b.name] = drawn.mean(dim=(1, 2)).numpy()
    return found


def _epsilon(means: Float[Tensor, "r m k"], points: Sequence[int], covered: Sequence[int]) -> Float[Tensor, "r"]:
    return additive_epsilons(means[:, list(points)], means[:, list(covered)])
