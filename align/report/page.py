"""The report page: what goes where. The looks are in `templates/`."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

from align.report import words
from align.report.curves import Series, gain_chart, line_chart
from align.report.gains import ALL, Gain
from align.report.grids import data_uri, evenly
from align.report.metrics import Metric, describe
from align.report.parity import parity_rows
from align.report.records import Run, Sample, Tile
from align.report.summary import Summary, is_about_texts, sentences, summarise, trained_rewards
from align.report.texts import IN_NATS, text_pairs

COLUMNS = 8  # steps of the progress strip
STRIP_SIDE, PAIR_SIDE, SAMPLE_SIDE = 160, 224, 192  # pixels
PAIRS = 12
SAMPLES = 6  # best and as many worst ones
PACKAGES = ("align-suite", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart of metrics that belong together, with the table's words for the first of them."""

    title: str
    svg: str
    legend: tuple[str, ...]
    metric: Metric | None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in the page: its data, what it shows in words, and its score."""

    uri: str | None
    alt: str
    score: str
    share: float | None = None
    """The score as a share of a bar, where it lies in [0, 1]."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StripRow:
    """One prompt and seed over training; None where a step has no picture."""

    prompt: str
    group: str
    seed: int
    tiles: tuple[tuple[int, Picture | None], ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One held-out prompt and seed before and after."""

    prompt: str
    group: str
    before: Picture
    after: Picture


# Charts in order: title, then the metrics of one chart. `*` takes every logged metric of that form.
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Reward", ("reward",)),
    ("Spread within a prompt's group", ("reward_std",)),
    ("Groups without a difference", ("frac_reward_zero_std",)),
    ("Distance to the base model", ("kl",)),
    ("Distance to the lagged policy", ("kl_lagged",)),
    ("Gradient norm", ("grad_norm",)),
    ("Likelihood ratio", ("ratio_deviation", "clip_ratio")),
    ("Implicit rewards", ("rewards/chosen", "rewards/rejected")),
    ("Margin of the pairs", ("rewards/margins",)),
    ("Pairs that are in order", ("rewards/accuracies",)),
    ("Ranking", ("ranking/accuracy", "ranking/accuracy_normalised", "ranking/idealised_accuracy")),
    ("Change of log-probabilities", ("logps/chosen_change", "logps/rejected_change")),
    ("Held-out loss", ("eval/loss",)),
    ("Held-out ranking", ("eval/ranking/accuracy", "eval/ranking/accuracy_normalised")),
    ("Held-out change of log-probabilities", ("eval/logps/chosen_change", "eval/logps/rejected_change")),
    ("Errors of the implicit policies", ("nft/positive", "nft/negative")),
    ("Loss", ("loss",)),
    ("Seconds per step", ("time/step",)),
)


def render(run: Run) -> str:
    """The whole page as one HTML text without any outside resource."""
    import jinja2

    folder = resources.files("align.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((folder / "report.html.jinja").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    return template.render(style=style, words=words, isfinite=math.isfinite, **content(run)).lstrip()


def content(run: Run) -> dict[str, Any]:
    """Everything that the template shows (Any: a template takes anything)."""
    summary = summarise(run)
    overall = sorted(summary.overall, key=lambda gain: gain is not summary.headline)  # stable: the headline goes first
    return {
        "run": run,
        "summary": summary,
        "sentences": sentences(run, summary),
        "strip": strip_rows(run),
        "overall": overall,
        "groups": group_tables(summary),
        "parity": parity_rows(run),
        "pairs": pairs(run, summary),
        "texts": text_pairs(run),
        "noun": "rows" if is_about_texts(run.config) else "pictures",
        "panels": panels(run),
        "best": [_sample(sample) for sample in _ranked(run.samples)[:SAMPLES]],
        "worst": [_sample(sample) for sample in _ranked(run.samples)[SAMPLES:][-SAMPLES:][::-1]],
        "versions": versions(),
    }


def panels(run: Run) -> list[Panel]:
    """The charts that have something to show: held-out first, then training metrics, then each single reward."""
    names = run.names()
    plan = [*PANELS]
    singles = [name for name in names if name.startswith("rewards/") and name.endswith("/mean")]
    if len(singles) > 1:
        plan.insert(1, ("Single rewards", tuple(singles[:4])))
    scored = len(run.evaluations) > 1 and any(evaluation.rewards for evaluation in run.evaluations)
    found = [_heldout_panel(run)] if scored else []
    for title, wanted in plan:
        logged = tuple(name for name in wanted if name in names)
        if logged:
            series = [_series(run, name) for name in logged]
            found.append(_panel(title, series, describe(logged[0])))
    return found


def group_tables(summary: Summary) -> list[tuple[str, list[Gain], str]]:
    """(reward, its gain per class of prompts, chart), for each reward that has classes."""
    rewards = dict.fromkeys(gain.reward for gain in summary.gains)
    tables = []
    for reward in rewards:
        rows = [gain for gain in summary.gains if gain.reward == reward]
        if len(rows) > 1:
            tables.append((reward, rows, gain_chart(rows, salt=f"gain {reward}")))
    return tables


def strip_rows(run: Run) -> list[StripRow]:
    """The progress strip: at most `COLUMNS` steps, the first and the last among them."""
    steps = evenly([tile.step for tile in run.strip], COLUMNS)
    rows: dict[tuple[str, str, int], dict[int, Tile]] = {}
    for tile in run.strip:
        rows.setdefault((tile.prompt, tile.group, tile.seed), {})[tile.step] = tile
    reward = _shown_reward(run, [tile.rewards for tile in run.strip])
    return [
        StripRow(
            prompt=prompt,
            group="" if group == ALL else group,
            seed=seed,
            tiles=tuple((step, _tile(tiles[step], reward) if step in tiles else None) for step in steps),
        )
        for (prompt, group, seed), tiles in rows.items()
    ]


def pairs(run: Run, summary: Summary) -> list[Pair]:
    """Pictures of the first held-out rows, before and after."""
    if len(run.evaluations) < 2 or summary.headline is None:
        return []
    first, last = run.evaluations[0], run.evaluations[-1]
    reward = _shown_reward(run, [row.rewards for row in last.rows])
    found = []
    for one, two, before, after in zip(first.rows, last.rows, first.pictures, last.pictures, strict=False):
        if (one.prompt, one.seed) != (two.prompt, two.seed):
            continue
        found.append(
            Pair(
                prompt=two.prompt,
                group="" if two.group == ALL else two.group,
                before=_picture(data_uri(before, PAIR_SIDE), f"{one.prompt}, before", one.rewards.get(reward)),
                after=_picture(data_uri(after, PAIR_SIDE), f"{two.prompt}, after", two.rewards.get(reward)),
            )
        )
    return found[:PAIRS]


def versions() -> list[tuple[str, str]]:
    """Python and the packages of the environment that writes the page; absent ones are left out."""
    found = [("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _heldout_panel(run: Run) -> Panel:
    found = dict.fromkeys(name for one in run.evaluations for name in one.rewards)
    names = [name for name in found if name not in IN_NATS][:4]
    series = []
    for name in names:
        points = [(one.step, one.rewards[name]) for one in run.evaluations if name in one.rewards]
        points = [(step, point) for step, point in points if math.isfinite(point.mean)]
        series.append(
            Series(
                label=name,
                steps=[step for step, _ in points],
                values=[point.mean for _, point in points],
                low=[point.low for _, point in points],
                high=[point.high for _, point in points],
            )
        )
    return _panel("Held-out rewards", series, describe("eval/<name>/mean"))


def _series(run: Run, name: str) -> Series:
    steps, values = run.series(name)
    return Series(label=_label(name, describe(name)), steps=steps, values=values)


def _label(name: str, metric: Metric | None) -> str:
    """The table's title; of a family, the part of the name that varies."""
    if name.startswith("rewards/"):
        return name.split("/")[1]
    if metric is None or "<" in metric.name:
        return name.rpartition("/")[2].replace("_", " ")
    return metric.title.lower()


def _panel(title: str, series: Sequence[Series], metric: Metric | None) -> Panel:
    legend = tuple(one.label for one in series) if len(series) > 1 else ()
    return Panel(title=title, svg=line_chart(series, salt=title), legend=legend, metric=metric)


def _shown_reward(run: Run, rows: Sequence[Mapping[str, float]]) -> str:
    """The reward that stands under a picture: the first trained one that these rows have, else the first they have."""
    present = dict.fromkeys(name for row in rows for name in row)
    return next((name for name in trained_rewards(run.config) if name in present), next(iter(present), ""))


def _tile(tile: Tile, reward: str) -> Picture:
    alt = f"{tile.prompt}, step {tile.step}"
    return _picture(data_uri(tile.image, STRIP_SIDE), alt, tile.rewards.get(reward))


def _ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Scored samples, best first."""
    return sorted((one for one in samples if math.isfinite(one.score)), key=lambda one: -one.score)


def _sample(sample: Sample) -> Picture:
    picture = data_uri(sample.image, SAMPLE_SIDE)
    return _picture(picture, sample.prompt, sample.score, detail=f"advantage {words.score(sample.advantage)}")


def _picture(uri: str | None, alt: str, value: float | None, detail: str = "") -> Picture:
    share = value if value is not None and 0.0 <= value <= 1.0 else None
    return Picture(uri=uri, alt=alt, score=words.score(value), share=share, detail=detail)
