"""The numbers of a run that a person asks for first. Pure: a `Run` in, numbers and sentences out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.report import words
from align.report.gains import ALL, Gain, gains
from align.report.records import Run
from align.report.texts import falling

REST = "everything else"  # time of a step that belongs to no stage
# Metrics that count mishaps: what is counted, and the rest of the sentence.
COUNTED = {
    "unscored": ("sample", "could not be scored and had no part in the training; the log says why."),
    "skipped_updates": (
        "update",
        "left out because of a gradient that was not finite: lower the learning rate or train in float32.",
    ),
    "checkpoint_failed": ("checkpoint", "could not be written; the one before survived. Is the disk full?"),
}


OF_PAIRS = ("ranking_accuracy", "ranking_accuracy_normalised")
"""Success rates of stored pairs: they say how a model ranks given answers, not what it answers."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a step: mean seconds per step, and its share of the step (NaN for stages apart from it)."""

    name: str
    seconds: float
    share: float
    needed: bool


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A run in numbers; NaN and empty where the folder does not say.

    Attributes:
        steps: steps with metrics.
        samples: pictures (or texts) that the steps have sampled and scored.
        seconds: of all steps together, without evaluation and checkpoints.
        reward: first and last mean training reward.
        gains: held-out rewards before and after, over all rows and per class of prompts.
        stages: where a step's time goes, longest first, then what is apart from the step.
        overhead: share of the steps' time outside model forward, backward, decode and reward.
        problems: sentences; empty if there were none.
    """

    title: str
    steps: int
    samples: int
    seconds: float
    reward: tuple[float, float]
    gains: tuple[Gain, ...]
    stages: tuple[Stage, ...]
    overhead: float
    problems: tuple[str, ...]

    @property
    def overall(self) -> tuple[Gain, ...]:
        """Gains over all held-out rows, one per reward."""
        return tuple(gain for gain in self.gains if gain.group == ALL)

    @property
    def headline(self) -> Gain | None:
        """The gain to quote: a success rate of what was sampled, else one of stored pairs, else the first reward's."""
        rates = [gain for gain in self.overall if gain.is_rate]
        sampled = [gain for gain in rates if gain.reward not in OF_PAIRS]
        return next(iter((*sampled, *rates, *self.overall)), None)


def summarise(run: Run) -> Summary:
    """All numbers of a run."""
    steps = sum(row["step"] > 0 for row in run.metrics)  # step 0 is the evaluation before training
    stages, seconds, overhead = stage_times(run.metrics)
    _, rewards = run.series("reward")
    compared: tuple[Gain, ...] = ()
    if len(run.evaluations) > 1:
        compared = tuple(gains(run.evaluations[0], run.evaluations[-1]))
    return Summary(
        title=run.folder.resolve().name,
        steps=steps,
        samples=steps * samples_per_step(run.config),
        seconds=seconds,
        reward=(rewards[0], rewards[-1]) if rewards else (math.nan, math.nan),
        gains=compared,
        stages=stages,
        overhead=overhead,
        problems=tuple(problems(run, compared)),
    )


def stage_times(metrics: Sequence[Mapping[str, float]]) -> tuple[tuple[Stage, ...], float, float]:
    """Mean time per stage, total time of the steps, and the overhead share.

    The share is one of sums, not a mean of shares: a slow step weighs as much as it lasted.
    """
    from align.engine.timers import APART, MODEL_WORK, overhead_share

    timed = [row for row in metrics if row.get("time/step", 0.0) > 0.0]
    if not timed:
        return (), math.nan, math.nan
    names = dict.fromkeys(key for row in timed for key in row if key.startswith("time/"))
    sums = {name.removeprefix("time/"): sum(row.get(name, 0.0) for row in timed) for name in names}
    total = sums["step"]
    inside = {name: value for name, value in sums.items() if name not in (*APART, "step")}
    inside[REST] = max(0.0, total - sum(inside.values()))
    stages = [
        Stage(name=name, seconds=value / len(timed), share=value / total, needed=name in MODEL_WORK)
        for name, value in sorted(inside.items(), key=lambda item: -item[1])
    ]
    stages += [
        Stage(name=name, seconds=sums[name] / len(timed), share=math.nan, needed=False)
        for name in APART
        if name in sums
    ]
    return tuple(stages), total, max(0.0, overhead_share(sums))


def is_about_texts(config: Mapping[str, object]) -> bool:
    """Whether the run is one of a language model."""
    return config.get("branch") in ("preference", "reward_model", "dpa")


def samples_per_step(config: Mapping[str, object]) -> int:
    """Samples of one step over all processes, drawn or stored ones; 0 if the config does not say."""
    algorithm = config.get("algorithm")
    stored = algorithm if isinstance(algorithm, Mapping) else {}
    for name, pictures in (("pairs_per_step", 2), ("images_per_step", 1)):  # off-line: no rollout
        rows = stored.get(name)
        if isinstance(rows, int):
            return pictures * rows
    rollout = config.get("rollout")
    if not isinstance(rollout, Mapping):
        return 0
    prompts, group = rollout.get("prompts_per_step"), rollout.get("group_size")
    return prompts * group if isinstance(prompts, int) and isinstance(group, int) else 0


def problems(run: Run, compared: Sequence[Gain]) -> list[str]:
    """What went wrong or looks wrong, in sentences with what to do."""
    found = []
    for name, (noun, sentence) in COUNTED.items():
        count = round(sum(run.series(name)[1]))
        if count:
            found.append(f"{words.plural(count, noun)} {sentence}")
    for name, count in run.not_finite.items():
        found.append(f"{name} was not a finite number in {words.plural(count, 'step')}.")
    # Classes are left to the table: of many intervals, some lie below zero by chance.
    for gain in (gain for gain in compared if gain.group == ALL and gain.difference.high < 0):
        found.append(f"Held-out {gain.reward} got worse: {words.change(gain)}.")
    return [*found, *falling(run), *run.notes]


def sentences(run: Run, summary: Summary) -> list[str]:
    """The paragraph at the top of the page: what was trained, how long, and what came of it."""
    if not summary.steps and summary.headline is None:
        return ["No step has finished yet."]
    found = (
        [_training(run, summary)]
        if summary.steps
        else [f"{_name(run.config, 'model', 'path', 'The model')} was evaluated."]
    )
    gain = summary.headline
    if gain is not None:
        rows = run.evaluations[-1].rows
        prompts = words.plural(len({row.prompt for row in rows}), "held-out prompt")
        seeds = words.plural(len({row.seed for row in rows}), "seed")
        found.append(
            f"On {prompts} with {seeds} each, {gain.reward} went from "
            f"{words.level(gain.before.mean, gain)} to {words.level(gain.after.mean, gain)}: {words.change(gain)}."
        )
    elif all(math.isfinite(value) for value in summary.reward):
        first, last = summary.reward
        moved = (
            f"was {words.number(last)}"
            if summary.steps == 1
            else f"went from {words.number(first)} to {words.number(last)}"
        )
        found.append(f"The training reward {moved}. There is no held-out comparison yet.")
    return found


def _training(run: Run, summary: Summary) -> str:
    """What was trained and what it took."""
    cost = f" in {words.duration(summary.seconds)}" if math.isfinite(summary.seconds) else ""
    made = f": {words.plural(summary.samples, 'picture')}{cost}" if summary.samples else cost
    return f"{_trained(run.config)} for {words.plural(summary.steps, 'step')}{made}."


def _trained(config: Mapping[str, object]) -> str:
    """The beginning of the sentence "AWM trained builtin:tiny on the reward shapes", as far as the config says."""
    method = _name(config, "algorithm", "kind", "The run").upper() if "algorithm" in config else "The run"
    model = _name(config, "model", "path", "its model")
    rewards = trained_rewards(config)
    return f"{method} trained {model}" + (f" on the reward {' + '.join(rewards)}" if rewards else "")


def trained_rewards(config: Mapping[str, object]) -> list[str]:
    """Names of the rewards whose weight is not 0."""
    entries = config.get("rewards")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return []
    weighted = [entry for entry in entries if isinstance(entry, Mapping) and entry.get("weight", 1.0)]
    return [str(entry.get("name") or str(entry.get("function", "")).rsplit(":", 1)[-1]) for entry in weighted]


def _name(config: Mapping[str, object], section: str, key: str, default: str) -> str:
    value = config.get(section)
    return str(value.get(key, default)) if isinstance(value, Mapping) else default
