"""What fronts are worth, with paired intervals: everything is computed again on the same drawn prompts. No IO.

Of a system with several trainings each number is the mean over its seeds; a resample draws the seeds again, too.
Numbers of fronts are in the box of `Frame`; means of points are in the units of the objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.inspect.sweep.between import epsilons
from align.inspect.sweep.control import asked_table, control
from align.inspect.sweep.frame import Frame
from align.inspect.sweep.systems import Sweep, System
from align.shaping.attainment import attainment
from align.shaping.fronts import drawn_means, expected_utility, igd_plus, percentile_interval
from align.shaping.pareto import hypervolume, non_dominated, simplex_grid
from align.statistics import Interval

SHARES = (0.975, 0.5, 0.025)
"""Attainment: reached nearly always, in half of the resamples, hardly ever."""
GRID = 160
"""Places of the first objective at which the attainment is computed."""
DIVISIONS = 10
"""Users of the expected utility: all weights that are multiples of 1/10 and sum to 1."""


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """One point, its seeds together.

    Attributes:
        means: of each objective.
        seeds: mean of each training.
        on_front: no other point of the sweep dominates it.
        below: objectives in which it is not above the reference: it adds nothing to the hypervolume.
        worst: (objective, change against the base) that fares worst, in the box's units; None without a base.
    """

    system: str
    label: str
    means: Sequence[Interval]
    seeds: Sequence[Sequence[float]]
    on_front: bool
    below: Sequence[str]
    worst: tuple[str, Interval] | None


@dataclass(frozen=True, kw_only=True)
class SystemResult:
    """One system.

    Attributes:
        front_points: points that no other point of the system dominates, mean over seeds.
        igd_plus: distance of the union front to the system's points; 0 = it has all of it.
        worst_change: change of the worst objective against the base, at the point where that is best; None without one.
        control: of each objective, rank correlation of what the points are asked for and what they reach; None where
            all are asked alike; nothing where points carry no directions.
        attainment: rows of `SHARES`, in the units of the second objective; None unless there are two objectives.
    """

    name: str
    points: int
    seeds: int
    front_points: float
    hypervolume: Interval
    expected_utility: Interval
    igd_plus: Interval
    worst_change: Interval | None
    control: Sequence[Interval | None]
    attainment: Float[Tensor, "q g"] | None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything.

    Attributes:
        differences: (first, second) -> hypervolume of the first minus that of the second.
        epsilons: (first, second) -> what must be added to the first in every objective, so that it covers the second.
        base: mean of each objective before training.
        grid: first objective of the attainment, in its unit.
        resamples: behind each interval.
    """

    points: Sequence[PointResult]
    systems: Sequence[SystemResult]
    differences: Mapping[tuple[str, str], Interval]
    epsilons: Mapping[tuple[str, str], Interval]
    base: Sequence[Interval] | None
    grid: Sequence[float]
    resamples: int


def measure(sweep: Sweep, frame: Frame, *, resamples: int = 1000, seed: int = 0) -> Results:
    """Measure all points and systems.

    Args:
        sweep: scores on the same prompts.
        frame: the box.
        resamples: how often prompts (and seeds of training) are drawn again.
        seed: of the drawing.
    """
    scores = frame(sweep.scores)
    before = None if sweep.base is None else frame(sweep.base)
    together = scores if before is None else torch.cat([scores, before.unsqueeze(0)])
    rows = together.shape[1]
    drawn = drawn_means(together, resamples=resamples, seed=seed)
    exact = together.mean(dim=1)
    m = len(sweep.points)
    means = torch.cat([exact[:m].unsqueeze(0), drawn[:, :m]])  # the first is no resample: all prompts once
    base = None if before is None else torch.cat([exact[m:].unsqueeze(0), drawn[:, m:]]).squeeze(1)
    generator = np.random.default_rng([seed, 1])
    chosen = [_drawn_seeds(len(one.seeds), resamples, generator) for one in sweep.systems]
    unions = [points[non_dominated(points)] for points in means]
    numbers = [_of_fronts(one, means, base, unions, seeds) for one, seeds in zip(sweep.systems, chosen, strict=True)]
    grid = _grid(means[..., 0])
    systems = []
    for one, seeds, found in zip(sweep.systems, chosen, numbers, strict=True):
        intervals = {name: _interval(values, rows) for name, values in found.items()}
        fronts = means[torch.arange(len(means)).unsqueeze(1), torch.tensor(one.places)[seeds[:, 0]]]
        surface = attainment(fronts[1:], grid, SHARES) if scores.shape[2] == 2 else None
        asked = asked_table(sweep, one)
        followed = [] if asked is None else control(asked, one, means, seeds)
        counts = [int(non_dominated(means[0, places]).sum()) for places in map(list, one.places)]
        systems.append(
            SystemResult(
                name=one.name,
                points=len(one.labels),
                seeds=len(one.seeds),
                front_points=sum(counts) / len(counts),
                hypervolume=intervals["hypervolume"],
                expected_utility=intervals["expected_utility"],
                igd_plus=intervals["igd_plus"],
                worst_change=intervals.get("worst_change"),
                control=[None if values is None else _interval(values, rows) for values in followed],
                attainment=None if surface is None else surface * frame.size[1] + frame.low[1],
            )
        )
    return Results(
        points=_points(sweep, frame, means, base, chosen),
        systems=systems,
        differences={
            (sweep.systems[a].name, sweep.systems[b].name): _interval(
                numbers[a]["hypervolume"] - numbers[b]["hypervolume"], rows
            )
            for a, b in combinations(range(len(systems)), 2)
        },
        epsilons={pair: _interval(values, rows) for pair, values in epsilons(sweep.systems, means, chosen).items()},
        base=None if base is None else _raw_intervals(base, frame, rows),
        grid=(grid * frame.size[0] + frame.low[0]).tolist(),
        resamples=resamples,
    )


def _drawn_seeds(count: int, resamples: int, generator: np.random.Generator) -> Int[Tensor, "r s"]:
    """The seeds of each resample; the first row is all of them once."""
    drawn = torch.from_numpy(generator.integers(count, size=(resamples, count)))
    return torch.cat([torch.arange(count).unsqueeze(0), drawn])


def _of_fronts(
    system: System,
    means: Float[Tensor, "r m k"],
    base: Float[Tensor, "r k"] | None,
    unions: Sequence[Tensor],
    seeds: Int[Tensor, "r s"],
) -> dict[str, np.ndarray]:
    """Numbers of a system in each resample, means over the drawn seeds. `unions`: front of all systems' points."""
    zero = torch.zeros(means.shape[2], dtype=torch.float64)
    users = simplex_grid(means.shape[2], DIVISIONS)
    measures: dict[str, Callable[[Tensor, int], float]] = {
        "hypervolume": lambda points, _: hypervolume(points, zero),
        "expected_utility": lambda points, _: expected_utility(points, users),
        "igd_plus": lambda points, place: igd_plus(points, unions[place]),
    }
    if base is not None:
        measures["worst_change"] = lambda points, place: float((points - base[place]).amin(dim=1).max())
    places = [list(one) for one in system.places]
    found = {}
    for name, of_front in measures.items():
        per_seed = [[of_front(points[own], place) for own in places] for place, points in enumerate(means)]
        found[name] = np.take_along_axis(np.asarray(per_seed), seeds.numpy(), axis=1).mean(axis=1)
    return found


def _points(
    sweep: Sweep,
    frame: Frame,
    means: Float[Tensor, "r m k"],
    base: Float[Tensor, "r k"] | None,
    chosen: Sequence[Int[Tensor, "r s"]],
) -> list[PointResult]:
    """Each point with its intervals, and whether it is on the front of all points."""
    rows = len(sweep.prompts)
    names = [one.name for one in sweep.objectives]
    found, centres = [], []
    for system, seeds in zip(sweep.systems, chosen, strict=True):
        places = torch.tensor(system.places)
        for number, label in enumerate(system.labels):
            own = means[torch.arange(len(means)).unsqueeze(1), places[:, number][seeds]].mean(dim=1)
            centres.append(own[0])
            single = means[0, places[:, number]] * frame.size + frame.low
            found.append(
                {
                    "system": system.name,
                    "label": label,
                    "means": _raw_intervals(own, frame, rows),
                    "seeds": single.tolist(),
                    "below": [name for name, value in zip(names, own[0].tolist(), strict=True) if value <= 0],
                    "worst": None if base is None else _worst(own - base, names, rows),
                }
            )
    flags = non_dominated(torch.stack(centres)).tolist()
    return [PointResult(**fields, on_front=flag) for fields, flag in zip(found, flags, strict=True)]


def _worst(changes: Float[Tensor, "r k"], names: Sequence[str], rows: int) -> tuple[str, Interval]:
    place = int(changes[0].argmin())
    return names[place], _interval(changes[:, place].numpy(), rows)


def _raw_intervals(numbers: Float[Tensor, "r k"], frame: Frame, rows: int) -> list[Interval]:
    return [_interval(column.numpy(), rows) for column in (numbers * frame.size + frame.low).unbind(dim=1)]


def _interval(numbers: np.ndarray, rows: int) -> Interval:
    """The first number is the estimate, the others are resampled."""
    return percentile_interval(float(numbers[0]), numbers[1:], rows)


def _grid(values: Float[Tensor, "..."]) -> Float[Tensor, "g"]:
    """From the reference, or the smallest value if that is below, to the largest."""
    return torch.linspace(min(0.0, float(values.min())), float(values.max()), GRID, dtype=torch.float64)
