"""A sweep as a page: what came out, pictures of the fronts, tables of systems and points, samples side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

from align.inspect.sweep.pictures import attainment_chart, colour_of, points_chart
from align.inspect.sweep.record import Found, options, record
from align.inspect.sweep.systems import Sweep
from align.report import words
from align.report.tables import Chart, Page, Shown, Table
from align.statistics import Interval

SAMPLES = 4
"""Prompts whose samples the page shows."""
FEW_SEEDS = 10
"""Trainings of a setting below which drawing them again says little."""
FEW_PROMPTS = 20
"""The same for prompts."""
NO_RESULT = "inside the interval: not a result"


def sweep_page(found: Found) -> Page:
    """Everything, in the order in which a person asks."""
    results, sweep = found.results, found.sweep
    several = words.plural(len(results.systems), "system")
    points = words.plural(len(results.points), "point")
    seeds = sorted({row.seed for row in sweep.points[0].rows})
    return Page(
        title=f"Trade-offs of {', '.join(found.names)}",
        lead=f"{several}, {points}, on {words.plural(len(sweep.prompts), 'held-out prompt')} with "
        f"{words.plural(len(seeds), 'seed')} each; samples of a prompt are averaged. Higher is better in every "
        f"objective. Intervals: 95 % of {results.resamples:,} resamples of the prompts, the same for all systems.",
        findings=list(_says(found)),
        heading="What came out",
        charts=list(_charts(found)),
        tables=list(_tables(found)),
        samples=_samples(sweep),
        record=record(found),
    )


def _says(found: Found) -> Iterator[str]:
    results = found.results
    best = max(results.systems, key=lambda one: one.hypervolume.mean)
    if len(results.systems) > 1:
        yield f"`{best.name}` has the largest hypervolume: {_interval(best.hypervolume)}."
        clear = [(pair, one) for pair, one in results.differences.items() if one.low > 0 or one.high < 0]
        for (first, second), one in clear:
            more, less = (first, second) if one.mean > 0 else (second, first)
            size = one if one.mean > 0 else _negative(one)
            yield f"`{more}` has more hypervolume than `{less}`: {_interval(size, signed=True)}."
        if not clear:
            yield "No difference of hypervolume is outside its interval: none is a result."
    else:
        yield f"`{best.name}` has the hypervolume {_interval(best.hypervolume)}."
    for one in results.systems:
        for name, value in zip(found.names, one.control, strict=False):
            if value is not None and value.low <= 0:
                yield (
                    f"`{one.name}` is not shown to follow its direction in {name}: the rank correlation of asked and "
                    f"reached is {_interval(value, signed=True)}."
                )
    dominated = [one for one in results.points if not one.on_front]
    if dominated:
        verb = "is" if len(dominated) == 1 else "are"
        yield (
            f"{len(dominated)} of {words.plural(len(results.points), 'point')} {verb} dominated (hollow in the "
            "pictures): another is better in something and worse in nothing."
        )
    for one in results.points:
        if one.below:
            yield (
                f"`{one.system}`, `{one.label}` is not above the reference in {' and '.join(one.below)} and adds "
                "nothing to the hypervolume."
            )
    yield (
        f"The box in which fronts are measured: {found.frame.origin}. Keep it for the next sweep: `{options(found)}`."
    )
    few = sorted({one.seeds for one in results.systems if 1 < one.seeds < FEW_SEEDS})
    if few:
        yield f"Trainings are drawn again, too, but there are only {few[0]} of a setting: intervals are too narrow."
    once = [f"`{one.name}`" for one in results.systems if one.seeds == 1]
    if once:
        yield f"Trained once: {', '.join(once)}. Intervals say nothing about the chance in their training."
    if len(found.sweep.prompts) < FEW_PROMPTS:
        yield f"There are only {len(found.sweep.prompts)} prompts to draw again from: intervals are too narrow."
    yield from _about_gaps(found.sweep)
    yield from found.notes


def _about_gaps(sweep: Sweep) -> Iterator[str]:
    if sweep.left_out:
        yield (
            f"{len(sweep.left_out)} of {len(sweep.left_out) + len(sweep.prompts)} prompts are left out everywhere: "
            "some point has no score of theirs."
        )
    worst = max(sweep.unscored)
    if worst > 0:
        place = list(sweep.unscored).index(worst)
        yield f"Unscored: up to {words.percent(worst)} of a point's numbers ({sweep.points[place].where})."


def _charts(found: Found) -> Iterator[Chart]:
    legend = [(colour_of(place), one.name) for place, one in enumerate(found.results.systems)]
    note = (
        "Bars: 95 % of the mean. Line: what a system reaches in these two objectives. Filled: dominated by no "
        "point of any system in all objectives."
    )
    if found.results.base is not None:
        note += " Cross: before training."
    for x, y in combinations(range(len(found.names)), 2):
        title = f"{found.names[x]} against {found.names[y]}"
        yield Chart(title=title, note=note, svg=points_chart(found.results, found.names, x, y), legend=legend)
    if len(found.names) == 2:
        yield Chart(
            title="Attained",
            note="Line: reached in half of the resamples. Band: from what 97.5 % of them reach to what 2.5 % reach.",
            svg=attainment_chart(found.results, found.names),
            legend=legend,
        )


def _tables(found: Found) -> Iterator[Table]:
    results = found.results
    yield Table(
        title="Systems",
        note="In the box: 0 is the reference, 1 its other end, in every objective. Utility: the best point for a user, "
        "averaged over users of all weights. IGD+: how far the front of all systems together is missed; 0 = not at "
        "all. Worst objective: its change against the model before training, at the point where that is best.",
        columns=("system", "points", "seeds", "on its front", "hypervolume", "utility", "IGD+", "worst objective"),
        rows=[
            (
                one.name,
                str(one.points),
                str(one.seeds),
                f"{one.front_points:g}" if one.seeds == 1 else f"{one.front_points:.1f}",
                _interval(one.hypervolume),
                _interval(one.expected_utility),
                _interval(one.igd_plus),
                words.DASH if one.worst_change is None else _interval(one.worst_change, signed=True),
            )
            for one in results.systems
        ],
    )
    if results.differences:
        yield Table(
            title="Differences of hypervolume",
            note="Paired: both on the same drawn prompts.",
            columns=("systems", "difference", ""),
            rows=[
                (
                    f"{first} - {second}",
                    _interval(one, signed=True),
                    "0 is outside" if one.low > 0 or one.high < 0 else NO_RESULT,
                )
                for (first, second), one in results.differences.items()
            ],
        )
    yield from _between(found)
    yield from _control(found)
    rows = [
        (
            one.system,
            one.label,
            "yes" if one.on_front else "no",
            *(_interval(mean) for mean in one.means),
            words.DASH if one.worst is None else f"{one.worst[0]} {_interval(one.worst[1], signed=True)}",
        )
        for one in results.points
    ]
    if results.base is not None:
        rows.append(("before training", "", "", *(_interval(mean) for mean in results.base), ""))
    yield Table(
        title="Points",
        note="Means in the objectives' own units. Front: dominated by no point of any system. Worst: "
        "the objective that fares worst against the model before training, in the box's units.",
        columns=("system", "point", "front", *found.names, "worst"),
        rows=rows,
    )


def _between(found: Found) -> Iterator[Table]:
    systems = [one.name for one in found.results.systems]
    if len(systems) < 2:
        return
    yield Table(
        title="Additive epsilon",
        note="What must be added to the system in every objective (in the box), so that it reaches all that the other "
        "reaches; 0 or less: it does already. Above 0 both ways: each has something that the other lacks.",
        columns=("system", *(f"to cover {name}" for name in systems)),
        rows=[
            (
                first,
                *(
                    words.DASH if first == second else _interval(found.results.epsilons[first, second], signed=True)
                    for second in systems
                ),
            )
            for first in systems
        ],
    )


def _control(found: Found) -> Iterator[Table]:
    steered = [one for one in found.results.systems if one.control]
    if not steered:
        return
    yield Table(
        title="Control",
        note="Rank correlation, over the directions of a system, of what is asked of an objective and what is "
        "reached: 1 = more is got wherever more is asked, 0 = no matter what is asked.",
        columns=("system", "directions", *found.names),
        rows=[
            (
                one.name,
                str(one.points),
                *(words.DASH if value is None else _interval(value, signed=True) for value in one.control),
            )
            for one in steered
        ],
    )


def _samples(sweep: Sweep) -> dict[str, list[Shown]]:
    """What each point made of the first prompts that can be shown, not chosen by hand; of several seeds the first."""
    shown: dict[str, list[Shown]] = {}
    for prompt in sweep.prompts:
        tiles = []
        for point, label in zip(sweep.points, sweep.labels, strict=True):
            place = next((i for i, row in enumerate(point.rows) if row.prompt == prompt), None)
            if place is None or (point.rows[place].completion is None and place not in point.pictures):
                continue
            pairs = zip(sweep.objectives, point.values[place].tolist(), strict=True)
            seed = f", seed {point.seed}" if sum(name == label for name in sweep.labels) > 1 else ""
            tiles.append(
                Shown(
                    prompt=f"{point.system}: {label}{seed}",
                    caption=", ".join(f"{one.name} {words.score(value)}" for one, value in pairs),
                    picture=point.pictures.get(place),
                    text=point.rows[place].completion or "",
                )
            )
        if tiles:
            shown[f"“{words.shortened(prompt, 160)}”"] = tiles
        if len(shown) == SAMPLES:
            break
    return shown


def _interval(found: Interval, *, signed: bool = False) -> str:
    """`0.412 (0.390 to 0.431)`, with as many decimals as the width of the interval asks for."""
    sign, width = "+" if signed else "", found.high - found.low
    decimals = min(max(1 - math.floor(math.log10(width)), 0), 6) if width > 0 else 3
    mean, low, high = (f"{value:{sign}.{decimals}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def _negative(found: Interval) -> Interval:
    return Interval(-found.mean, -found.high, -found.low, found.n)
