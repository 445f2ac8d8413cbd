"""Intervals for what a run measured: success shares, means, and gains between two measurements of the same rows. Pure.

Pictures of the same prompt resemble each other; treating them as independent makes every interval too narrow. Pass
the prompts as `clusters` and whole prompts are drawn instead of pictures.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


class Interval(NamedTuple):
    """An estimate and its confidence interval, all in the unit of the data."""

    mean: float
    low: float
    high: float
    n: int
    """Rows that the estimate is over."""


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a share of successes; right at 0 of n and n of n, where the textbook interval has no width.

        centre = (p + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt( p (1 - p) / n + z^2 / 4n^2 )

    Args:
        successes: 0 .. n.
        n: independent trials.
        confidence: coverage, in (0, 1).

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, found {successes} of {n}.")
    z, share = _quantile(confidence), successes / n
    shrink = 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / shrink
    half = z / shrink * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At both ends the bound is 0 or 1 exactly; rounding would leave 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(share, low, high, n)


def bootstrap_mean_interval(
    values: Sequence[float] | Float[Array, "n"],
    confidence: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a mean: rows (or whole clusters) are drawn again with replacement.

    Args:
        values: one number per row; NaN rows (not scored) are left out.
        confidence: coverage, in (0, 1).
        clusters: rows with equal entries are drawn together; None = every row by itself. A single cluster says nothing
            about its like: then its rows are drawn, and the interval is too narrow.
        resamples: how often all rows are drawn again.
        seed: of the drawing; the same data and seed give the same interval.

    Raises:
        ValueError: no row has a number.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    tail = _tail(confidence)
    numbers = np.asarray(values, dtype=np.float64)
    scored = ~np.isnan(numbers)
    if not scored.any():
        raise ValueError(f"none of the {numbers.size} values is a number: there is no mean to give an interval for.")
    sums, counts = _cluster_sums(numbers, scored, clusters)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(numbers[scored].mean()), float(low), float(high), int(scored.sum()))


def paired_bootstrap_interval(
    before: Sequence[float] | Float[Array, "n"],
    after: Sequence[float] | Float[Array, "n"],
    confidence: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean gain `after - before` of the same rows (same prompt, same seed) in the same order.

    Pairing removes the spread between prompts, which both measurements share: the interval is that of the gain
    itself. A row that lacks either number is left out. Arguments as in `bootstrap_mean_interval`.
    """
    if len(before) != len(after):
        raise ValueError(
            f"expected the same rows before and after, found {len(before)} and {len(after)}. "
            "Evaluate both with the same prompts and seeds."
        )
    gains = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean_interval(gains.tolist(), confidence, clusters=clusters, resamples=resamples, seed=seed)


def _cluster_sums(
    numbers: Float[Array, "n"], scored: Array, clusters: Sequence[Hashable] | None
) -> tuple[Float[Array, "c"], Int[Array, "c"]]:
    """Sum and number of scored rows of each cluster that has any."""
    if clusters is None:
        return numbers[scored], np.ones(int(scored.sum()), dtype=np.int64)
    if len(clusters) != len(numbers):
        raise ValueError(f"expected one cluster per row, found {len(clusters)} clusters for {len(numbers)} rows.")
    place = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    codes = np.array([place[cluster] for cluster in clusters])[scored]
    counts = np.bincount(codes, minlength=len(place))
    sums = np.bincount(codes, weights=numbers[scored], minlength=len(place))
    if (counts > 0).sum() == 1:
        return _cluster_sums(numbers, scored, None)
    return sums[counts > 0], counts[counts > 0]


def _resampled_means(
    sums: Float[Array, "c"], counts: Int[Array, "c"], resamples: int, generator: np.random.Generator
) -> Float[Array, "r"]:
    """Mean of all rows of each resample, a few at a time to bound the memory."""
    size, block = len(sums), max(1, 2_000_000 // len(sums))
    means = []
    for start in range(0, resamples, block):
        drawn = generator.integers(size, size=(min(block, resamples - start), size))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}; 0.95 is usual.")
    return (1 - confidence) / 2


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(1 - _tail(confidence))
