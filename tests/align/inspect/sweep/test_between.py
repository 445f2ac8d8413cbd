"""What systems lack of each other, and whether points do what their direction asks: by hand, by moocore, in a page."""

import csv
import json

import moocore
import pytest
import torch

from align.inspect.sweep.asked import asked_of
from align.inspect.sweep.command import find_trade_offs, write_sweep
from align.inspect.sweep.sources import Source, parse_objectives
from align.shaping.fronts import additive_epsilon, additive_epsilons

from .folders import constant, run_folder

BOX = {"reference": {"a": 0.0, "b": 0.0}, "high": {"a": 1.0, "b": 1.0}, "resamples": 30}


def compare(sources, objectives="a,b", **options):
    return find_trade_offs(sources, parse_objectives(objectives), **{**BOX, **options})


def steered(path, points, **config):
    """A run whose prompts are asked under directions: condition -> (a, b)."""
    rows = [row for name, (a, b) in points.items() for row in constant(a, b, group=name)]
    return Source(system=path.name, run=run_folder(path, {4: rows}, **config))


def test_epsilon_is_that_of_moocore():
    draw = torch.Generator().manual_seed(0)
    points, others = torch.rand(2, 5, 7, 3, generator=draw, dtype=torch.float64)
    for mine, theirs, found in zip(points, others, additive_epsilons(points, others), strict=True):
        known = moocore.epsilon_additive(mine.numpy(), ref=theirs.numpy(), maximise=True)
        assert float(found) == pytest.approx(known)
        assert additive_epsilon(mine, theirs) == pytest.approx(known)


def test_what_two_fronts_lack_of_each_other(tmp_path):
    """x = (1, 0), (0, 1), y = (1/2, 1/2). To cover y, x lacks 1/2 of one objective at either end; to cover an end of x,
    y lacks 1/2. z = (3/4, 3/4) covers y with 1/4 to spare, y lacks 1/4 of it."""
    runs = {
        ("x", "right"): (1.0, 0.0),
        ("x", "up"): (0.0, 1.0),
        ("y", "half"): (0.5, 0.5),
        ("z", "more"): (0.75, 0.75),
    }
    sources = [
        Source(system=system, run=run_folder(tmp_path / label, {4: constant(*value)}))
        for (system, label), value in runs.items()
    ]
    found = compare(sources)
    known = {("x", "y"): 0.5, ("y", "x"): 0.5, ("z", "y"): -0.25, ("y", "z"): 0.25, ("x", "z"): 0.75, ("z", "x"): 0.25}
    assert {pair: one.mean for pair, one in found.results.epsilons.items()} == pytest.approx(known)
    page, _ = write_sweep(found, tmp_path / "out")
    (table,) = [one for one in page.tables if one.title == "Additive epsilon"]
    assert table.rows[0] == ("x", "–", "+0.500 (+0.500 to +0.500)", "+0.750 (+0.750 to +0.750)")
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    assert {row["system"] for row in rows if row["what"] == "epsilon"} >= {"x to cover y", "y to cover x"}
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())["epsilons"][0]
    assert (stored["of"], stored["to_cover"], stored["mean"]) == ("x", "y", 0.5)


def test_epsilon_of_several_trainings_is_the_mean_over_their_pairs(tmp_path):
    """x has trainings at 0 and 1/2, y one at 1: 1 and 1/2 are lacking, 3/4 on average; drawn again anything between."""
    sources = [
        Source(system="x", run=run_folder(tmp_path / f"x-seed{seed}", {4: constant(size, size)}, seed=seed))
        for seed, size in ((0, 0.0), (1, 0.5))
    ]
    sources.append(Source(system="y", run=run_folder(tmp_path / "y", {4: constant(1.0, 1.0)})))
    assert compare(sources).results.epsilons["x", "y"][:3] == pytest.approx((0.75, 0.5, 1.0))


@pytest.mark.parametrize(
    ("condition", "objectives", "asked"),
    [
        ("relevance 80, brevity -60", None, {"relevance": 0.8, "brevity": -0.6}),
        ("very relevant 100", None, {"very relevant": 1.0}),
        ("all", None, {}),
        ("relevance 80, colour", None, {}),
        ("", None, {}),
        ("good 60, brevity 80", {"good": {"a": 0.5, "b": 0.5}, "brevity": {"b": -1}}, {"a": 0.3, "b": 0.3 - 0.8}),
    ],
)
def test_conditions_that_are_directions(condition, objectives, asked):
    """0.6 of a mean of a and b is 0.3 of each; 0.8 of brevity is 0.8 less of b."""
    config = {} if objectives is None else {"algorithm": {"objectives": objectives}}
    assert asked_of(condition, config) == pytest.approx(asked)


def test_control_of_a_system_that_follows_and_of_one_that_does_not(tmp_path):
    """follows: more of a whenever more is asked, of b in the wrong order once: ranks 1 2 3 against 1 3 2, rho = 1/2.
    deaf: always the same, so 0. Plain runs have no control."""
    directions = ("a 100", "a 71, b 71", "b 100")
    follows = steered(tmp_path / "follows", dict(zip(directions, ((0.9, 0.1), (0.5, 0.6), (0.1, 0.5)), strict=True)))
    deaf = steered(tmp_path / "deaf", dict.fromkeys(directions, (0.5, 0.5)))
    plain = Source(system="plain", run=run_folder(tmp_path / "plain", {4: constant(0.5, 0.5)}))
    found = compare([follows, deaf, plain])
    values = {one.name: [None if x is None else x.mean for x in one.control] for one in found.results.systems}
    assert values == {"follows": pytest.approx([1.0, 0.5]), "deaf": [0.0, 0.0], "plain": []}
    page, _ = write_sweep(found, tmp_path / "out")
    (table,) = [one for one in page.tables if one.title == "Control"]
    assert [row[0] for row in table.rows] == ["follows", "deaf"]
    assert any("`deaf` is not shown to follow its direction in a" in line for line in page.findings)
    assert not any("`follows` is not shown" in line for line in page.findings)


def test_control_knows_which_way_is_better_and_what_is_asked_alike(tmp_path):
    """Less b is better, and the objective `brief` is -b: asking for brief is asking for the objective -b. Of a all
    directions ask 0. Two directions are too few."""
    mixes = {"algorithm": {"objectives": {"brief": {"b": -1.0}, "a": {"a": 1.0}}}}
    points = {"brief 100": (0.5, 0.1), "brief 50": (0.5, 0.4), "brief 20": (0.5, 0.8)}
    ends = {"reference": {"a": 0.0, "-b": -1.0}, "high": {"a": 1.0, "-b": 0.0}}
    (system,) = compare([steered(tmp_path / "s", points, **mixes)], "a,-b", **ends).results.systems
    assert system.control[0] is None
    assert system.control[1].mean == pytest.approx(1.0)
    few = {name: points[name] for name in ("brief 100", "brief 20")}
    (system,) = compare([steered(tmp_path / "few", few, **mixes)], "a,-b", **ends).results.systems
    assert system.control == []
