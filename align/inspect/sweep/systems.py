"""Points of many runs -> systems that may be compared: the same prompts and seeds, seeds of training apart. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.errors import AlignError
from align.groups import group_first, group_mean
from align.inspect.sweep.sources import Objective, Point

NAMED = 3
"""Differing prompts that a message names."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A way to trade objectives off, with its points.

    Attributes:
        name: of the system.
        labels: of its points.
        seeds: of the training; each seed has all points.
        places: rows of `Sweep.scores`, seed by seed.
    """

    name: str
    labels: Sequence[str]
    seeds: Sequence[int]
    places: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything that was measured on the same prompts.

    Attributes:
        objectives: after orientation, higher is better.
        prompts: those that every point has all objectives of.
        left_out: prompts that some point has no score of.
        points: of all systems.
        labels: what each point is called within its system; the same for the seeds of one setting.
        scores: mean over the samples of a prompt.
        systems: what is compared.
        base: the model before training; None where nobody has evaluated it.
        unscored: share of each point's numbers that are missing.
    """

    objectives: Sequence[Objective]
    prompts: Sequence[str]
    left_out: Sequence[str]
    points: Sequence[Point]
    labels: Sequence[str]
    scores: Float[Tensor, "m p k"]
    systems: Sequence[System]
    base: Float[Tensor, "p k"] | None
    unscored: Sequence[float]


def made_sweep(objectives: Sequence[Objective], points: Sequence[Point], base: Sequence[Point]) -> Sweep:
    """Bring points together.

    Args:
        objectives: columns of the points' values.
        points: of all systems.
        base: the model before training, one point per condition; they count as one.

    Raises:
        AlignError: other prompts or seeds, settings without all seeds, or no prompt that has all scores.
    """
    for one in [*points[1:], *base]:
        _check_same(points[0], one)
    prompts = tuple(dict.fromkeys(row.prompt for row in points[0].rows))
    scores = torch.stack([prompt_means(one, prompts) for one in points])
    before = torch.stack([prompt_means(one, prompts) for one in base]).nanmean(dim=0) if base else None
    everything = scores if before is None else torch.cat([scores, before.unsqueeze(0)])
    complete = ~everything.isnan().any(dim=2).any(dim=0)
    if not complete.any():
        raise AlignError(
            "no prompt has a score of every objective at every point, so there is nothing to compare.",
            "See which reward is unscored: `align audit RUN`; or choose other --objectives.",
        )
    flags, labels = complete.tolist(), _labels(points)
    return Sweep(
        objectives=objectives,
        prompts=[prompt for prompt, whole in zip(prompts, flags, strict=True) if whole],
        left_out=[prompt for prompt, whole in zip(prompts, flags, strict=True) if not whole],
        points=points,
        labels=labels,
        scores=scores[:, complete],
        systems=_systems(points, labels),
        base=None if before is None else before[complete],
        unscored=[float(one.values.isnan().double().mean()) for one in points],
    )


def prompt_means(point: Point, prompts: Sequence[str]) -> Float[Tensor, "p k"]:
    """Mean over the scored samples of each prompt; NaN where a prompt has none.

    Samples are averaged, never the best of them taken: best-of-n and single samples are different things.
    """
    number = {prompt: place for place, prompt in enumerate(prompts)}
    ids = torch.tensor([number[row.prompt] for row in point.rows])
    means = torch.stack([group_mean(column, ids) for column in point.values.unbind(dim=1)], dim=1)
    first = group_first(ids)
    found = torch.full((len(prompts), means.shape[1]), torch.nan, dtype=torch.float64)
    found[ids[first]] = means[first]
    return found


def _check_same(first: Point, other: Point) -> None:
    """Refuse a point on other prompts or seeds, and say which."""
    mine, theirs = ({row.prompt for row in one.rows} for one in (first, other))
    if mine != theirs:
        raise AlignError(
            f"{first.where} and {other.where} are not on the same prompts: "
            f"{_only(mine - theirs, 'first')}; {_only(theirs - mine, 'second')}.",
            "Evaluate all runs on the same held-out prompts: `align evaluate RUN KEY=VALUE`, then give that folder.",
        )
    mine, theirs = (Counter((row.prompt, row.seed) for row in one.rows) for one in (first, other))
    if mine != theirs:
        seeds = [sorted({row.seed for row in one.rows}) for one in (first, other)]
        found = (
            f"seeds {seeds[0]} and {seeds[1]}"
            if seeds[0] != seeds[1]
            else f"{len(first.rows)} and {len(other.rows)} samples"
        )
        raise AlignError(
            f"{first.where} and {other.where} have not the same seeds of each prompt: {found}.",
            "Evaluate all runs with the same number of seeds.",
        )


def _only(prompts: set[str], which: str) -> str:
    if not prompts:
        return f"the {which} has no other ones"
    shown = ", ".join(f"`{prompt[:60]}`" for prompt in sorted(prompts)[:NAMED])
    return f"only the {which} has {shown}{' ...' if len(prompts) > NAMED else ''}"


def _labels(points: Sequence[Point]) -> list[str]:
    """Setting and condition of each point; a setting that all points of a system share goes without saying."""
    settings: dict[str, set[str]] = {}
    for point in points:
        settings.setdefault(point.system, set()).add(point.setting)
    found = []
    for point in points:
        if not point.condition:
            found.append(point.setting)
        elif len(settings[point.system]) == 1:
            found.append(point.condition)
        else:
            found.append(f"{point.setting}: {point.condition}")
    return found


def _systems(points: Sequence[Point], labels: Sequence[str]) -> list[System]:
    """Points by system, label and seed; where labels come back with other seeds, these are trainings of one setting."""
    found = []
    for name in dict.fromkeys(point.system for point in points):
        place: dict[str, dict[int, int]] = {}
        for number, (point, label) in enumerate(zip(points, labels, strict=True)):
            if point.system != name:
                continue
            if point.seed in place.setdefault(label, {}):
                raise AlignError(
                    f"`{name}` has the point `{label}` twice with seed {point.seed}.",
                    "Give each run once; runs of one setting differ in their seed or in an end `-seed0` of their name.",
                )
            place[label][point.seed] = number
        if all(len(of_label) == 1 for of_label in place.values()):
            seeds = (next(iter(next(iter(place.values())))),)
            places = [[number for of_label in place.values() for number in of_label.values()]]
        else:
            seeds = tuple(sorted({seed for of_label in place.values() for seed in of_label}))
            _check_seeds(name, seeds, place)
            places = [[of_label[seed] for of_label in place.values()] for seed in seeds]
        found.append(System(name=name, labels=tuple(place), seeds=seeds, places=places))
    return found


def _check_seeds(name: str, seeds: Sequence[int], place: Mapping[str, Mapping[int, int]]) -> None:
    """Refuse a front that lacks a point for some seed."""
    for label, of_label in place.items():
        if set(of_label) != set(seeds):
            raise AlignError(
                f"`{name}`: the point `{label}` has the seeds {sorted(of_label)}, others have {list(seeds)}; a front "
                "needs every point with every seed.",
                "Train what is missing, or leave those seeds out.",
            )
