"""Pareto dominance, front, hypervolume, simplex grids. Everything is maximised. Pure; NaN = not scored.

Points may be a tensor, an array or nested lists `[n, k]`; a point with a NaN dominates nothing and is on no front.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Points: TypeAlias = Tensor | np.ndarray | Sequence[Any]  # Any: nested lists of whole or real numbers
Point: TypeAlias = Tensor | np.ndarray | Sequence[Any]

MOST_OBJECTIVES = 6  # exact hypervolume; the time grows exponentially with the objectives
BLOCK = 1 << 22  # comparisons held at once


def dominates(a: Float[Tensor, "... k"], b: Float[Tensor, "... k"]) -> Bool[Tensor, "..."]:
    """Whether a is at least as good in every objective and better in one. Exact, no tolerance; broadcasts."""
    return (a >= b).all(dim=-1) & (a > b).any(dim=-1)


def non_dominated(points: Points) -> Bool[Tensor, "n"]:
    """Which points no other point dominates. Exact duplicates of such a point all count."""
    table = as_table(points)
    scored = ~table.isnan().any(dim=1)
    beaten = torch.zeros(len(table), dtype=torch.bool)
    rows = max(1, BLOCK // max(table.numel(), 1))
    for start in range(0, len(table), rows):
        block = table[start : start + rows]
        better = dominates(table.unsqueeze(0), block.unsqueeze(1)) & scored
        beaten[start : start + rows] = better.any(dim=1)
    return scored & ~beaten


def front(points: Points) -> Int[Tensor, "f"]:
    """Positions of the front, one of each set of duplicates (the first), by falling first objective."""
    table = as_table(points)
    places = non_dominated(table).nonzero().flatten()
    if len(places) == 0:
        return places
    _, code = torch.unique(table[places], dim=0, return_inverse=True)
    first = torch.full((int(code.max()) + 1,), len(places)).scatter_reduce(0, code, torch.arange(len(places)), "amin")
    places = places[first]
    return places[torch.argsort(table[places][:, 0], descending=True, stable=True)]


def hypervolume(points: Points, reference: Point) -> float:
    """Volume of everything that lies above the reference and below some point.

        HV = volume of the union of the boxes [reference, p]

    Points that are not above the reference in every objective add nothing. One objective: the best gain. Two: sorted by
    the first and swept, exact. Three to six: the library moocore.

    Args:
        points: `[n, k]`, maximised.
        reference: `[k]`, worse than every point that is ever compared. Fix it before the first run: a reference taken
            from the points changes with every point, and runs cannot be compared.

    Raises:
        ValueError: sizes that disagree, a reference that is not finite, an infinite point, more than six objectives.
    """
    table, origin = _above(points, reference)
    k = len(origin)
    if k > MOST_OBJECTIVES:
        raise ValueError(
            f"the exact hypervolume is for at most {MOST_OBJECTIVES} objectives, found {k}. "
            "Use hypervolume_monte_carlo and state its standard error."
        )
    if len(table) == 0:
        return 0.0
    if k == 1:
        return float((table - origin).max())
    return _sweep(table - origin) if k == 2 else _by_library(table, origin)


def hypervolume_monte_carlo(
    points: Points, reference: Point, *, draws: int = 100_000, seed: int = 0
) -> tuple[float, float]:
    """Estimate of the hypervolume and its standard error, for many objectives.

    Uniform draws in the box from the reference to the best of each objective; the share below some point.
    """
    table, origin = _above(points, reference)
    if len(table) == 0:
        return 0.0, 0.0
    size = table.amax(dim=0) - origin
    generator = torch.Generator().manual_seed(seed)
    inside = 0
    rows = max(1, BLOCK // table.numel())
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = origin + size * torch.rand(count, len(origin), generator=generator, dtype=torch.float64)
        inside += int((drawn.unsqueeze(1) <= table.unsqueeze(0)).all(dim=2).any(dim=1).sum())
    share, volume = inside / draws, float(size.prod())
    return share * volume, volume * (share * (1 - share) / draws) ** 0.5


def in_unit_box(points: Points, low: Point, high: Point) -> Float[Tensor, "n k"]:
    """(p - low) / (high - low) with *fixed* ends per objective, so that 0.083 means the same next month."""
    table, bottom, top = as_table(points), _point(low), _point(high)
    if not (top > bottom).all():
        raise ValueError(f"expected `low` below `high` in every objective, found {bottom.tolist()} and {top.tolist()}.")
    return (table - bottom) / (top - bottom)


def simplex_grid(objectives: int, divisions: int) -> Float[Tensor, "p k"]:
    """All weight vectors with entries 0, 1/d, 2/d, ... that sum to 1: C(d + k - 1, k - 1) of them, in order.

    Args:
        objectives: k, at least 1.
        divisions: d, at least 1.
    """
    if objectives < 1 or divisions < 1:
        raise ValueError(f"expected at least 1 objective and 1 division, found {objectives} and {divisions}.")
    bars = itertools.combinations(range(divisions + objectives - 1), objectives - 1)
    edges = torch.tensor([(-1, *bar, divisions + objectives - 1) for bar in bars], dtype=torch.float64)
    return (edges.diff(dim=1) - 1) / divisions


def _sweep(gains: Float[Tensor, "n 2"]) -> float:
    """Area under a staircase: by falling first objective, each point adds a strip above the best second one so far."""
    ordered = gains[torch.argsort(gains[:, 0], descending=True, stable=True)]
    height = ordered[:, 1].cummax(dim=0).values
    below = torch.cat([torch.zeros(1, dtype=torch.float64), height[:-1]])
    return float((ordered[:, 0] * (height - below)).sum())


def _by_library(table: Float[Tensor, "n k"], origin: Float[Tensor, "k"]) -> float:
    import moocore

    return float(moocore.hypervolume((-table).numpy(), ref=(-origin).numpy()))


def _above(points: Points, reference: Point) -> tuple[Float[Tensor, "m k"], Float[Tensor, "k"]]:
    """The points above the reference in every objective, and the reference."""
    table, origin = as_table(points), _point(reference)
    if table.shape[1] != len(origin):
        raise ValueError(f"expected a reference of {table.shape[1]} objectives, found {len(origin)}.")
    if not origin.isfinite().all():
        raise ValueError(f"the reference must be finite, found {origin.tolist()}.")
    if table.isinf().any():
        raise ValueError("a point is infinite: its hypervolume would be, too. Use nan for what was not measured.")
    return table[(table > origin).all(dim=1)], origin


def as_table(points: Points) -> Float[Tensor, "n k"]:
    table = torch.as_tensor(points, dtype=torch.float64).detach().cpu()
    if table.ndim != 2:
        raise ValueError(f"expected points of shape [n, k], found {list(table.shape)}.")
    return table


def _point(point: Point) -> Float[Tensor, "k"]:
    return torch.as_tensor(point, dtype=torch.float64).detach().cpu().reshape(-1)
