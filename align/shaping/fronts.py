"""Comparing fronts: distance to a reference front, expected utility, bootstrap intervals, how even the gains are. Pure.

`pareto.py` says what a front is; everything is maximised here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from align.shaping.pareto import Point, Points, as_table, hypervolume, simplex_grid
from align.statistics import Interval


def igd_plus(points: Points, reference_front: Points) -> float:
    """Mean over the reference front of how far the nearest point falls short of it; 0 = nothing is missing.

        IGD+ = mean_z min_p || max(z - p, 0) ||_2

    References:
        Ishibuchi et al., "Modified Distance Calculation in Generational Distance and Inverted Generational Distance",
        EMO 2015.
    """
    short = (as_table(reference_front).unsqueeze(1) - as_table(points).unsqueeze(0)).clamp(min=0.0)
    return float(short.norm(dim=2).amin(dim=1).mean())


def additive_epsilon(points: Points, reference_front: Points) -> float:
    """Smallest amount that, added to every objective, lets the points cover the reference front.

        eps = max_z min_p max_k (z_k - p_k)        negative if the points are better everywhere

    References:
        Zitzler et al., "Performance Assessment of Multiobjective Optimizers", IEEE TEVC 7 (2003).
    """
    return float(additive_epsilons(as_table(points), as_table(reference_front)))


def additive_epsilons(
    points: Float[Tensor, "... n k"], reference_front: Float[Tensor, "... m k"]
) -> Float[Tensor, "..."]:
    """`additive_epsilon` of many fronts at once."""
    short = (reference_front.unsqueeze(-2) - points.unsqueeze(-3)).amax(dim=-1)
    return short.amin(dim=-1).amax(dim=-1)


def expected_utility(points: Points, weights: Float[Tensor, "p k"] | None = None, *, divisions: int = 10) -> float:
    """Mean over users with weights w of the best w . p; `weights` None = a fixed simplex grid."""
    table = as_table(points)
    users = simplex_grid(table.shape[1], divisions) if weights is None else weights.double()
    return float((users @ table.T).amax(dim=1).mean())


def bootstrap_front(
    scores: Float[Tensor, "s p k"],
    measure: Callable[[Float[Tensor, "s k"]], float],
    confidence: float = 0.95,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a number about a front, by drawing prompts again with replacement.

    Every system is evaluated on the same drawn prompts: what all prompts share cancels.

    Args:
        scores: of s systems on p prompts (mean over the samples of a prompt), k objectives, none NaN.
        measure: number of the systems' mean points `[s, k]`, for example
            `lambda points: hypervolume(points, reference)`.
        confidence: coverage, in (0, 1).
        resamples: how often the prompts are drawn.
        seed: of the drawing.

    Returns:
        The number on all prompts and its interval; a difference between fronts inside it is no result.
    """
    exact = scores.double()
    numbers = [measure(points) for points in drawn_means(exact, resamples=resamples, seed=seed)]
    return percentile_interval(measure(exact.mean(dim=1)), numbers, scores.shape[1], confidence)


def drawn_means(
    scores: Float[Tensor, "s p k"], *, resamples: int = 1000, seed: int = 0, block: int = 4096
) -> Float[Tensor, "r s k"]:
    """Mean points of all systems on prompts that are drawn again with replacement; each resample is the same for all.

    Args:
        scores: of s systems on p prompts, k objectives, none NaN.
        resamples: r, how often the prompts are drawn.
        seed: of the drawing.
        block: resamples computed at once; bounds the memory and changes nothing else.

    Raises:
        ValueError: a score is missing.
    """
    if scores.isnan().any():
        raise ValueError("every system needs a score for every prompt; leave out prompts that one of them lacks.")
    systems, prompts, objectives = scores.shape
    generator = np.random.default_rng(seed)
    flat = scores.double().transpose(0, 1).reshape(prompts, systems * objectives)
    parts = []
    for start in range(0, resamples, block):
        drawn = torch.from_numpy(generator.integers(prompts, size=(min(block, resamples - start), prompts)))
        counts = torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        parts.append(counts @ flat / prompts)
    return torch.cat(parts).reshape(resamples, systems, objectives)


def percentile_interval(
    estimate: float, numbers: Sequence[float] | np.ndarray, rows: int, confidence: float = 0.95
) -> Interval:
    """An estimate with the interval that holds the middle `confidence` of its resampled numbers.

    Raises:
        ValueError: `confidence` is no share between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}; 0.95 is usual.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(numbers, dtype=np.float64), [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), rows)


def bootstrap_hypervolume(
    scores: Float[Tensor, "s p k"], reference: Point, confidence: float = 0.95, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """`bootstrap_front` of the hypervolume."""
    return bootstrap_front(
        scores, lambda points: hypervolume(points, reference), confidence, resamples=resamples, seed=seed
    )


def evenness(utilities: Float[Tensor, "n"]) -> dict[str, float]:
    """How a total is spread over users, groups or prompts; give the four numbers together.

        total, worst, p20 (the 20 % quantile), gini = sum_ij |u_i - u_j| / (2 n^2 mean)     0 = all alike

    Args:
        utilities: >= 0, one per user or group; NaN is left out.

    References:
        The reporting rule is that of "Negotiative Alignment", arXiv:2503.12613.
    """
    scored = utilities[~utilities.isnan()].double().sort().values
    if len(scored) == 0:
        raise ValueError("none of the utilities is a number.")
    if scored[0] < 0:
        raise ValueError(f"the Gini coefficient needs utilities of 0 or more, found {float(scored[0])}.")
    n, total = len(scored), float(scored.sum())
    places = torch.arange(1, n + 1, dtype=torch.float64)
    gini = float(((2 * places - n - 1) * scored).sum()) / (n * total) if total > 0 else 0.0
    return {
        "total": total,
        "worst": float(scored[0]),
        "p20": float(scored.quantile(0.2)),
        "gini": gini,
    }
