"""Pictures of trade-offs: points with their intervals and the front through them, and what fronts attain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from align.inspect.sweep.measures import PointResult, Results
from align.report.curves import FAINT, SERIES, figure, svg
from align.shaping.pareto import front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes tell apart what colours cannot: there are four of those."""
WIDTH, HEIGHT = 340, 260  # points


def colour_of(place: int) -> int:
    """Number of a system's colour, from 1."""
    return place % len(SERIES) + 1


def points_chart(results: Results, names: Sequence[str], x: int, y: int) -> str:
    """Two objectives of all points, with 95 % bars; a staircase through the front of each system.

    Filled: no point of any system dominates it in all objectives, not only in these two.

    Args:
        results: of the sweep.
        names: of the objectives.
        x: place of the objective to the right.
        y: place of the objective upwards.
    """
    with figure(f"points {names[x]} {names[y]}", WIDTH, HEIGHT) as (drawn, axes):
        if results.base is not None:
            axes.plot([results.base[x].mean], [results.base[y].mean], "+", color=FAINT, markersize=9)
        for place, system in enumerate(results.systems):
            own = [point for point in results.points if point.system == system.name]
            _staircase(axes, own, x, y, SERIES[place % len(SERIES)])
            for point in own:
                _point(axes, point, x, y, SERIES[place % len(SERIES)], MARKS[place % len(MARKS)])
        _labels(axes, names, x, y)
        return svg(drawn)


def attainment_chart(results: Results, names: Sequence[str]) -> str:
    """For two objectives: the staircase that half of the resamples reach, in the band of 95 % of them."""
    with figure("attainment", WIDTH, HEIGHT) as (drawn, axes):
        reached = [one.attainment[one.attainment.isfinite()] for one in results.systems if one.attainment is not None]
        floor = float(torch.cat(reached).min())
        for place, system in enumerate(results.systems):
            if system.attainment is None:
                continue
            colour = SERIES[place % len(SERIES)]
            low, middle, high = (_down_to(floor, row) for row in system.attainment)
            low = torch.where(high.isnan(), high, low.nan_to_num(floor))
            axes.fill_between(
                results.grid, low.tolist(), high.tolist(), step="pre", color=colour, alpha=0.2, linewidth=0
            )
            axes.step(results.grid, middle.tolist(), where="pre", color=colour, linewidth=1.5)
        _labels(axes, names, 0, 1)
        return svg(drawn)


def _point(axes: Axes, point: PointResult, x: int, y: int, colour: str, mark: str) -> None:
    right, up = point.means[x], point.means[y]
    axes.plot([right.low, right.high], [up.mean] * 2, color=colour, linewidth=1.1, alpha=0.6)
    axes.plot([right.mean] * 2, [up.low, up.high], color=colour, linewidth=1.1, alpha=0.6)
    if len(point.seeds) > 1:
        axes.plot([one[x] for one in point.seeds], [one[y] for one in point.seeds], ".", color=colour, markersize=3)
    filled = colour if point.on_front else "none"
    axes.plot([right.mean], [up.mean], mark, color=colour, markersize=5.5, markerfacecolor=filled)


def _staircase(axes: Axes, points: Sequence[PointResult], x: int, y: int, colour: str) -> None:
    """From point to point along what they reach, not straight: nothing in between has been shown to be reachable."""
    table = torch.tensor([[point.means[x].mean, point.means[y].mean] for point in points], dtype=torch.float64)
    corners = table[front(table)].flip(0)
    axes.step(corners[:, 0].tolist(), corners[:, 1].tolist(), where="pre", color=colour, linewidth=1.2)


def _labels(axes: Axes, names: Sequence[str], x: int, y: int) -> None:
    axes.grid(visible=True, axis="both")
    axes.margins(x=0.06, y=0.08)
    axes.set_xlabel(f"{names[x]} →")
    axes.set_ylabel(f"{names[y]} →")


def _down_to(floor: float, surface: torch.Tensor) -> torch.Tensor:
    """A surface that falls to the floor where nothing is reached any more, and is not drawn beyond."""
    ends = surface.isinf()
    first = ends & ~ends.roll(1)
    return torch.where(first, floor, torch.where(ends, math.nan, surface))
