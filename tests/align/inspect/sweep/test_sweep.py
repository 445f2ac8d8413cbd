"""Points from folders, what may not be compared, numbers of fronts by hand, the page and its files."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from align.cli.app import app
from align.errors import AlignError
from align.inspect.sweep.command import find_trade_offs, parse_sources, write_sweep
from align.inspect.sweep.frame import Frame, made_frame
from align.inspect.sweep.measures import measure
from align.inspect.sweep.record import options
from align.inspect.sweep.sources import Objective, Source, parse_objectives, read_source
from align.inspect.sweep.systems import made_sweep

from .folders import constant, row, run_folder

A_B = (Objective(reward="a"), Objective(reward="b"))
UNIT = {"reference": {"a": 0.0, "b": 0.0}, "high": {"a": 1.0, "b": 1.0}}


def compare(sources, objectives=A_B, **options):
    return find_trade_offs(sources, objectives, **{"resamples": 40, **UNIT, **options})


@pytest.fixture
def two(tmp_path):
    """x reaches (1, 1/2) and (1/2, 1), y (1/2, 1/2); before training (1/4, 1/2)."""
    base = constant(0.25, 0.5)
    runs = {
        "right": run_folder(tmp_path / "right", {0: base, 4: constant(1.0, 0.5)}),
        "up": run_folder(tmp_path / "up", {4: constant(0.5, 1.0)}),
        "poor": run_folder(tmp_path / "poor", {0: base, 4: constant(0.5, 0.5)}),
    }
    return [
        Source(system="x", run=runs["right"]),
        Source(system="x", run=runs["up"]),
        Source(system="y", run=runs["poor"]),
    ]


def test_two_fronts_by_hand(two):
    """HV of x: 1 * 1/2 + 1/2 * 1/2 = 3/4; of y: 1/4. Utility of x: users w = 0, 0.1 .. 1 have max(1 - w/2, 1/2 + w/2),
    9.75 / 11; of y 1/2. IGD+ of y: both corners of x are 1/2 away. Worst change: x is (3/4, 0) or (1/4, 1/2) better
    than the base, so 1/4; y is (1/4, 0) better, so 0. All prompts are alike: intervals have no width."""
    found = compare(two)
    x, y = found.results.systems
    assert (x.hypervolume.mean, x.hypervolume.low, x.hypervolume.high) == pytest.approx((0.75,) * 3)
    assert y.hypervolume.mean == pytest.approx(0.25)
    assert x.expected_utility.mean == pytest.approx(9.75 / 11)
    assert y.expected_utility.mean == pytest.approx(0.5)
    assert (x.igd_plus.mean, y.igd_plus.mean) == pytest.approx((0.0, 0.5))
    assert (x.worst_change.mean, y.worst_change.mean) == pytest.approx((0.25, 0.0))
    assert (x.front_points, y.front_points) == (2, 1)
    assert found.results.differences["x", "y"][:3] == pytest.approx((0.5, 0.5, 0.5))
    points = {(one.system, one.label): one for one in found.results.points}
    assert [points[key].on_front for key in (("x", "right"), ("x", "up"), ("y", "poor"))] == [True, True, False]
    name, change = points["x", "right"].worst
    assert (name, change.mean) == ("b", pytest.approx(0.0))


def test_the_attained_staircase_of_a_front_without_chance_is_the_front(two):
    """Up to 1/2 x reaches 1, from there to 1 it reaches 1/2; all three shares agree. y does not go beyond 1/2."""
    found = compare(two).results
    grid = torch.tensor(found.grid)
    x, y = (one.attainment for one in found.systems)
    expected = torch.where(grid <= 0.5, 1.0, 0.5).double()
    for surface in x:
        torch.testing.assert_close(surface, expected)
    assert y[:, grid > 0.5].isinf().all()


def test_intervals_are_paired(tmp_path):
    """y is x less 0.1 in both objectives on each prompt: each interval is wide, that of the difference is not."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 2, generator=draw).tolist()
    sources = []
    for name, less in (("x", 0.0), ("y", 0.1)):
        rows = [row(f"p{i}", 0, {"a": a - less, "b": b - less}) for i, (a, b) in enumerate(scores)]
        sources.append(Source(system=name, run=run_folder(tmp_path / name, {4: rows})))
    found = compare(sources, resamples=100).results
    x, y = (one.hypervolume for one in found.systems)
    difference = found.differences["x", "y"]
    assert difference.low > 0
    assert difference.high - difference.low < 0.3 * (x.high - x.low)
    assert difference.mean == pytest.approx(x.mean - y.mean)
    again = compare(sources, resamples=100).results
    assert again.differences == found.differences


def test_seeds_of_a_training_are_averaged_and_drawn_again(tmp_path):
    """Hypervolumes 1/4 and 1 of two trainings: 5/8 on average; drawn again anything from 1/4 to 1."""
    sources = [
        Source(system="x", run=run_folder(tmp_path / f"one-seed{seed}", {4: constant(size, size)}, seed=seed))
        for seed, size in ((0, 0.5), (1, 1.0))
    ]
    found = compare(sources)
    (system,) = found.results.systems
    assert system.seeds == 2
    assert system.hypervolume[:3] == pytest.approx((0.625, 0.25, 1.0))
    (point,) = found.results.points
    assert point.label == "one"
    assert point.seeds == [pytest.approx([0.5, 0.5]), pytest.approx([1.0, 1.0])]
    assert point.means[0][:3] == pytest.approx((0.75, 0.5, 1.0))
    assert system.attainment[[0, 2], 0].tolist() == pytest.approx([0.5, 1.0])
    assert any("only 2 of a setting" in line for line in write_sweep(found, tmp_path / "out")[0].findings)


def test_directions_are_points(tmp_path):
    """Two classes that ask the same prompts are conditions; classes with prompts of their own are not."""
    rows = [*constant(1.0, 0.0, group="a 100"), *constant(0.0, 1.0, group="b 100")]
    steered = read_source(Source(system="s", run=run_folder(tmp_path / "steered", {0: rows, 4: rows})), A_B)
    assert [point.condition for point in steered.points] == ["a 100", "b 100"]
    assert len(steered.base) == 2
    rows = [*constant(1.0, 0.0, ("p",), group="one"), *constant(0.0, 1.0, ("q",), group="two")]
    plain = read_source(Source(system="s", run=run_folder(tmp_path / "plain", {4: rows})), A_B)
    assert [point.condition for point in plain.points] == [""]
    sweep = made_sweep(A_B, [*steered.points, *plain.points], steered.base)
    assert sweep.systems[0].labels == ("steered: a 100", "steered: b 100", "plain")
    torch.testing.assert_close(sweep.base, torch.full((2, 2), 0.5).double())


def test_a_direction_that_lacks_a_prompt_is_no_point(tmp_path):
    rows = [*constant(1.0, 0.0, group="a 100"), *constant(0.0, 1.0, ("p",), group="b 100")]
    with pytest.raises(AlignError, match=r"`q` \(seed 0\) is asked under other conditions, but not under `b 100`"):
        read_source(Source(system="s", run=run_folder(tmp_path / "run", {4: rows})), A_B)


def test_less_is_better_behind_a_minus(tmp_path):
    run = run_folder(tmp_path / "run", {4: constant(0.5, 3.0)})
    objectives = parse_objectives("a,-b")
    (point,) = read_source(Source(system="s", run=run), objectives).points
    assert point.values.tolist() == [[0.5, -3.0]] * 2
    assert [one.name for one in objectives] == ["a", "-b"]


def test_samples_of_a_prompt_are_averaged_and_gaps_stay_gaps(tmp_path):
    """p: a is 0.2 and 0.6, b is 1 and unscored: (0.4, 1). q has no b: it is left out everywhere."""
    rows = [
        row("p", 0, {"a": 0.2, "b": 1.0}),
        row("q", 0, {"a": 0.9, "b": None}),
        row("p", 1, {"a": 0.6, "b": None}),
        row("q", 1, {"a": 0.9, "b": None}),
    ]
    full = [row(prompt, seed, {"a": 0.5, "b": 0.5}) for prompt in "pq" for seed in range(2)]
    found = compare(
        [
            Source(system="x", run=run_folder(tmp_path / "x", {4: rows})),
            Source(system="y", run=run_folder(tmp_path / "y", {4: full})),
        ]
    )
    assert (found.sweep.prompts, found.sweep.left_out) == (["p"], ["q"])
    torch.testing.assert_close(found.sweep.scores[0], torch.tensor([[0.4, 1.0]]).double())
    assert found.sweep.unscored == [3 / 8, 0.0]
    says = " ".join(write_sweep(found, tmp_path / "out")[0].findings)
    assert "1 of 2 prompts are left out everywhere" in says
    assert "Unscored: up to 37.5 %" in says


def test_rows_of_held_out_pairs_are_no_samples(tmp_path):
    rows = [row("pair", 0, {"accuracy": 1.0}), *constant(0.5, 0.25)]
    (point,) = read_source(Source(system="s", run=run_folder(tmp_path / "run", {4: rows})), A_B).points
    assert [one.prompt for one in point.rows] == ["p", "q"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (constant(1.0, 1.0, ("p", "r")), r"not on the same prompts: only the first has `q`; only the second has `r`"),
        (constant(1.0, 1.0, ("p",)), r"only the first has `q`; the second has no other ones"),
        ([*constant(1.0, 1.0), row("p", 1, {"a": 0.0, "b": 0.0})], r"not the same seeds of each prompt: seeds \[0\]"),
        ([*constant(1.0, 1.0), *constant(1.0, 1.0)], "2 and 4 samples"),
        ([row(prompt, 0, {"a": 1.0, "b": None}) for prompt in "pq"], "no prompt has a score of every objective"),
        ([row(prompt, 0, {"a": 1.0, "bb": 1.0}) for prompt in "pq"], r"has no reward `b`. Did you mean `bb`?"),
        ([row("p", 0, {"a": 1.0}), row("q", 0, {"b": 1.0})], "no sample has all of a, b"),
    ],
)
def test_what_may_not_be_compared(tmp_path, rows, message):
    first = Source(system="x", run=run_folder(tmp_path / "x", {4: constant(0.5, 0.5)}))
    other = Source(system="y", run=run_folder(tmp_path / "y", {4: rows}))
    with pytest.raises(AlignError, match=message):
        compare([first, other])


def test_other_mistakes(two, tmp_path):
    with pytest.raises(AlignError, match="has the point `poor` twice with seed 0"):
        compare([*two, two[2]])
    with pytest.raises(AlignError, match="is no run folder"):
        compare([Source(system="x", run=tmp_path)])
    with pytest.raises(AlignError, match="holds no evaluation"):
        compare([Source(system="x", run=run_folder(tmp_path / "empty", {}))])
    with pytest.raises(AlignError, match=r"no evaluation of step 3; it has 0, 4"):
        compare(two, step=3)
    with pytest.raises(AlignError, match="no run to look at"):
        compare([])
    with pytest.raises(AlignError, match="at most 6 objectives, found 7"):
        compare(two, parse_objectives("a,b,c,d,e,f,g"))
    lonely = run_folder(tmp_path / "lonely-seed1", {4: constant(0.0, 0.0)})
    pair = [run_folder(tmp_path / f"twin-seed{seed}", {4: constant(0.0, 0.0)}) for seed in range(2)]
    with pytest.raises(AlignError, match=r"`lonely` has the seeds \[1\], others have \[0, 1\]"):
        compare([Source(system="x", run=run) for run in (lonely, *pair)])
    for text in ("a", "a,a", "a,-a", ""):
        with pytest.raises(AlignError, match="two or more different objectives"):
            parse_objectives(text)


def test_arguments_apart():
    config, sources = parse_sources(["demo/x", "dpa=runs/a", "soup=runs/b, runs/c"])
    assert config == "demo/x"
    assert [(one.system, str(one.run)) for one in sources] == [
        ("dpa", "runs/a"),
        ("soup", "runs/b"),
        ("soup", "runs/c"),
    ]
    for texts in (["=runs/a"], ["x="], ["x=runs/a,"]):
        with pytest.raises(AlignError, match="expected NAME=RUN"):
            parse_sources(texts)
    with pytest.raises(AlignError, match="one config and any number"):
        parse_sources(["one", "two"])


def test_runs_are_called_after_their_folder(tmp_path):
    """The folders of `align evaluate` lie in their run; seeds at the end of a name are taken off it."""
    for path, name, seed in (
        ("weak-seed3", "weak", 3),
        ("run_a", "run_a", 7),
        ("run_b/evaluation/step_000004", "run_b", 7),
        ("run_c-seed2/evaluation/step_000004", "run_c", 2),
        ("seed5", "seed5", 7),
    ):
        found = read_source(Source(system="s", run=run_folder(tmp_path / path, {4: constant(0, 0)}, seed=7)), A_B)
        assert (found.points[0].setting, found.points[0].seed) == (name, seed)
    with_evaluations = Source(system="s", run=tmp_path / "run_a" / "evaluations")
    assert read_source(with_evaluations, A_B).points[0].setting == "run_a"


def points_of(*values):
    """Points of one condition; values are rows of (prompt, a, b)."""
    rows = [SimpleNamespace(prompt=prompt, seed=0) for prompt, *_ in values]
    return [SimpleNamespace(rows=rows, values=torch.tensor([scores for _, *scores in values], dtype=torch.float64))]


def test_the_box_by_hand():
    """p: a 0 and 2, b 1 and 1; q: a 4 and 4, b 2 and 4. Within prompts a: (1 + 1) / 2 -> 1, b: (1 + 1) / 2 -> 1;
    means 2.5 and 2: the box goes from (0.5, 0) to (4.5, 4). With one sample a prompt, (0, 1) and (4, 3): deviations
    8^0.5 and 2^0.5 around (2, 2)."""
    frame = made_frame(A_B, points_of(("p", 0, 1), ("p", 2, 1), ("q", 4, 2), ("q", 4, 4)))
    assert (frame.low.tolist(), frame.high.tolist()) == ([0.5, 0.0], [4.5, 4.0])
    assert "within a prompt" in frame.origin
    frame = made_frame(A_B, points_of(("p", 0, 1), ("q", 4, 3)))
    assert frame.low.tolist() == pytest.approx([2 - 2 * 8**0.5, 2 - 2 * 2**0.5])
    assert "over prompts" in frame.origin
    frame = made_frame(A_B, (), {"a": -1.0, "b": 2.0})
    assert (frame.low.tolist(), frame.high.tolist()) == ([-1.0, 2.0], [0.0, 3.0])


def test_no_box():
    with pytest.raises(AlignError, match="there is no reference point") as caught:
        made_frame(A_B, ())
    assert "--reference a=0,b=0" in caught.value.way_out
    with pytest.raises(AlignError, match=r"--reference names `aa`.*Did you mean `a`"):
        made_frame(A_B, (), {"aa": 0.0, "b": 0.0})
    with pytest.raises(AlignError, match="--high has no number for `b`"):
        made_frame(A_B, (), {"a": 0.0, "b": 0.0}, {"a": 1.0})
    with pytest.raises(AlignError, match="box of `b` would go from 3 to 1"):
        made_frame(A_B, (), {"a": 0.0, "b": 3.0}, {"a": 1.0, "b": 1.0})
    with pytest.raises(AlignError, match="same score of `b` everywhere"):
        made_frame(A_B, points_of(("p", 0, 1), ("q", 4, 1)))


def test_three_objectives(tmp_path):
    """Boxes of (1, 1/2, 1/2) and (1/2, 1, 1/2): 1/4 + 1/4 - 1/8. Three pairs of objectives, no attained staircase."""
    names = ("a", "b", "c")
    sources = [
        Source(system="x", run=run_folder(tmp_path / str(i), {4: [row("p", 0, dict(zip(names, p, strict=True)))]}))
        for i, p in enumerate([(1.0, 0.5, 0.5), (0.5, 1.0, 0.5)])
    ]
    ends = {"reference": dict.fromkeys(names, 0.0), "high": dict.fromkeys(names, 1.0)}
    found = compare(sources, parse_objectives("a,b,c"), **ends)
    assert found.results.systems[0].hypervolume.mean == pytest.approx(0.375)
    page, _ = write_sweep(found, tmp_path / "out")
    assert [chart.title for chart in page.charts] == ["a against b", "a against c", "b against c"]


def test_a_scaled_box_scales_nothing_but_units(two):
    """Hypervolume does not change when rewards and box are stretched together."""
    sweep = compare(two).sweep
    stretch = torch.tensor([10.0, -0.0]).double() + torch.tensor([0.0, 3.0]).double()
    wide = SimpleNamespace(**{**vars(sweep), "scores": sweep.scores * stretch, "base": sweep.base * stretch})
    found = measure(wide, Frame(low=torch.zeros(2).double(), high=stretch, origin="x"), resamples=40)
    assert found.systems[0].hypervolume.mean == pytest.approx(0.75)
    assert found.points[0].means[0].mean == pytest.approx(10.0)


def test_the_page_and_its_files_say_the_same(two, tmp_path):
    found = compare(two)
    page, written = write_sweep(found, tmp_path / "out")
    html = written.read_text()
    for text in ("Trade-offs of a, b", "What came out", "Attained", "Differences of hypervolume", "IGD+", "q 1.0 0.5"):
        assert text in html
    assert html.count("<svg") == 2
    assert not [word for word in ("http://", "https://", 'src="/') if word in html.replace("http://www.w3.org", "")]
    assert list(page.samples) == ["“p”", "“q”"]
    assert [one.prompt for one in page.samples["“p”"]] == ["x: right", "x: up", "y: poor"]
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    by_name = {(one["what"], one["system"], one["point"], one["quantity"]): float(one["mean"]) for one in rows}
    assert by_name["system", "x", "", "hypervolume"] == record["systems"][0]["hypervolume"]["mean"]
    assert by_name["difference", "x - y", "", "hypervolume"] == record["differences"][0]["mean"]
    assert by_name["point", "y", "poor", "b"] == record["points"][2]["means"]["b"]["mean"]
    assert by_name["before training", "", "", "a"] == 0.25
    assert len(record["attainment_at"]) == len(record["systems"][1]["attainment"]["0.5"])
    assert record["systems"][1]["attainment"]["0.5"][-1] is None


def test_pictures_are_shown_beside_each_other(tmp_path):
    """The second condition's first sample is row 2 of the record: its picture is 002.png. Other rows have none."""
    plain = [{key: value for key, value in one.items() if key != "completion"} for one in constant(0.5, 0.5)]
    rows = [{**one, "class": group} for group in ("left", "right") for one in plain]
    run = run_folder(tmp_path / "run", {4: rows})
    folder = run / "evaluations" / "pictures" / "step_000004"
    folder.mkdir(parents=True)
    for name, colour in (("000", "red"), ("002", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    page, written = write_sweep(compare([Source(system="x", run=run)]), tmp_path / "out")
    assert {title: [(one.prompt, one.picture.stem) for one in tiles] for title, tiles in page.samples.items()} == {
        "“p”": [("x: left", "000"), ("x: right", "002")]
    }
    assert written.read_text().count("data:image/png") == 2


def test_a_difference_inside_its_interval_is_called_no_result(tmp_path):
    rows = [[row("p", 0, {"a": x, "b": 1.0}), row("q", 0, {"a": 1 - x, "b": 1.0})] for x in (0.2, 0.8)]
    sources = [
        Source(system=name, run=run_folder(tmp_path / name, {4: part})) for name, part in zip("xy", rows, strict=True)
    ]
    page, _ = write_sweep(compare(sources), tmp_path / "out")
    assert page.tables[1].rows[0][-1] == "inside the interval: not a result"
    assert "No difference of hypervolume is outside its interval: none is a result." in page.findings


def test_what_makes_runs_unlike_is_said(tmp_path):
    evaluation = {"generate": {"temperature": 0.0}}
    one = run_folder(
        tmp_path / "one", {2: constant(0.5, -1.0)}, evaluation=evaluation, rewards=[{"function": "m.py:a"}]
    )
    evaluation = {"generate": {"temperature": 1.0}}
    two = run_folder(
        tmp_path / "two", {4: constant(0.5, 0.5)}, evaluation=evaluation, rewards=[{"function": "n.py:a", "name": "a"}]
    )
    found = compare([Source(system="x", run=one), Source(system="y", run=two)])
    says = "\n".join(write_sweep(found, tmp_path / "out")[0].findings)
    assert "`temperature` is 0.0 in" in says
    assert "`a` is m.py:a in" in says
    assert "not finished: its last evaluation is of step 2 of 4" in says
    assert "`x`, `one` is not above the reference in b" in says


def test_the_command(two, tmp_path):
    right, up, poor = (str(source.run) for source in two)
    arguments = [
        "sweep",
        f"x={right},{up}",
        f"y={poor}",
        "-O",
        "a,b",
        "-o",
        str(tmp_path / "out"),
        "--resamples",
        "100",
    ]
    done = CliRunner().invoke(app, [*arguments, "--reference", "a=0,b=0", "--high", "a=1,b=1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "0.750 (0.750 to 0.750)" in done.output
    assert "Page: " in done.output
    with pytest.raises(AlignError, match="expected reference as `name=number"):
        CliRunner().invoke(app, [*arguments, "--reference", "a"], catch_exceptions=False)
    with pytest.raises(AlignError, match="vary a config, and none is given"):
        CliRunner().invoke(app, [*arguments, "--try", "seed=1"], catch_exceptions=False)
    with pytest.raises(AlignError, match="nothing is tried"):
        CliRunner().invoke(app, [*arguments, "demo/awm_tiny"], catch_exceptions=False)


def test_the_box_can_be_asked_for_again(two):
    assert options(compare(two)) == "--reference a=0,b=0 --high a=1,b=1"
