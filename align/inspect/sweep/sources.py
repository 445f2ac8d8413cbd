"""Points of systems, read from run folders and from the folders of `align evaluate`. IO only.

Of a run whose prompts are all asked under several conditions (the directions of DPA are its classes), each condition is
a point; of any other run its evaluation is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.errors import AlignError, did_you_mean
from align.inspect.sweep.asked import asked_of
from align.inspect.sweep.origin import functions, named, notes, sampling
from align.report.read import read_run
from align.report.records import Evaluation, EvaluationRow


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A reward that is an objective; `sign` is -1 where less is better."""

    reward: str
    sign: int = 1

    @property
    def name(self) -> str:
        """How it is called after orientation: higher is better."""
        return self.reward if self.sign > 0 else f"-{self.reward}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run of a system.

    Attributes:
        system: name of the system.
        run: run folder, or a folder of `align evaluate`.
        label: what the point is called; empty = the folder's name without its seed.
        seed: of the training; None = from the folder's name or its config.
    """

    system: str
    run: Path
    label: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """An evaluation of one model under one condition.

    Attributes:
        system: whose it is.
        setting: what was trained; the same for the seeds of one setting.
        condition: what it was asked for; empty where it is asked for nothing in particular.
        seed: of the training.
        where: folder, step and condition, for messages.
        rows: one per prompt and seed of the sampling.
        values: of the objectives, higher is better; NaN where unscored.
        pictures: place of a row -> its picture, where one was kept.
        asked: reward -> how much of it the condition asks for; empty where the condition is no direction.
    """

    system: str
    setting: str
    condition: str
    seed: int
    where: str
    rows: Sequence[EvaluationRow]
    values: Float[Tensor, "n k"]
    pictures: Mapping[int, Path]
    asked: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a source holds.

    Attributes:
        points: of the trained model.
        base: of the model before training, one per condition; empty where the run has no evaluation of step 0.
        sampling: settings that decide what a sample is.
        functions: objective -> the function behind it, as far as the config says.
        notes: what a person should know, in sentences.
    """

    points: Sequence[Point]
    base: Sequence[Point]
    sampling: Mapping[str, Any]
    functions: Mapping[str, str]
    notes: Sequence[str]


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """`relevance,-length` as objectives; a minus means that less is better.

    Raises:
        AlignError: fewer than two, or one named twice.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    found = tuple(Objective(reward=name.lstrip("-"), sign=-1 if name.startswith("-") else 1) for name in names)
    if len(found) < 2 or len({one.reward for one in found}) < len(found):
        raise AlignError(
            f"expected two or more different objectives, found `{text}`.", "For example --objectives relevance,-length."
        )
    return found


def read_source(source: Source, objectives: Sequence[Objective], step: int | None = None) -> Read:
    """Read one run.

    Args:
        source: the run.
        objectives: what is looked at.
        step: of the evaluation; None takes the last.

    Raises:
        AlignError: no such folder, no evaluation (of this step), or a reward that was not evaluated.
    """
    folder = source.run.parent if source.run.name == "evaluations" else source.run
    try:
        run = read_run(folder)
    except FileNotFoundError as error:
        raise AlignError(
            f"`{source.run}` is no run folder: {error}", "Give folders of `align train` or `align evaluate`."
        ) from error
    if not run.evaluations:
        raise AlignError(
            f"{folder} holds no evaluation, so it is no point.",
            "Set held-out prompts for the run, or give the folder of `align evaluate`.",
        )
    steps = [one.step for one in run.evaluations]
    if step is not None and step not in steps:
        raise AlignError(
            f"{folder} has no evaluation of step {step}; it has {', '.join(map(str, steps))}.",
            "Name one of them with --step, or leave it out for the last.",
        )
    chosen = run.evaluations[-1 if step is None else steps.index(step)]
    base = run.evaluations[0] if steps[0] == 0 else None
    name, seed = named(folder, run)
    source = Source(
        system=source.system,
        run=folder,
        label=source.label or name,
        seed=seed if source.seed is None else source.seed,
    )
    return Read(
        points=_points(source, chosen, objectives, run.config),
        base=() if base is None else _points(source, base, objectives, run.config),
        sampling=sampling(run.config),
        functions=functions(run.config, [one.reward for one in objectives]),
        notes=notes(run, chosen, asked=step is not None),
    )


def _points(
    source: Source, evaluation: Evaluation, objectives: Sequence[Objective], config: Mapping[str, Any]
) -> list[Point]:
    """One point, or one for each condition that all prompts are asked under."""
    where = f"{source.run}, step {evaluation.step}"
    conditions = _conditions(evaluation.rows, _measured(evaluation.rows, objectives, where), where)
    pictures = {int(path.stem): path for path in evaluation.pictures if path.stem.isdecimal()}
    found = []
    for condition, part in conditions.items():
        rows = [evaluation.rows[place] for place in part]
        values = [[one.sign * row.rewards[one.reward] for one in objectives] for row in rows]  # NaN stays NaN
        found.append(
            Point(
                system=source.system,
                setting=source.label,
                condition=condition,
                seed=source.seed or 0,
                where=f"{where}, {condition}" if condition else where,
                rows=rows,
                values=torch.tensor(values, dtype=torch.float64),
                pictures={new: pictures[old] for new, old in enumerate(part) if old in pictures},
                asked=asked_of(condition, config),
            )
        )
    return found


def _conditions(rows: Sequence[EvaluationRow], places: Sequence[int], where: str) -> dict[str, list[int]]:
    """Rows by condition. Classes that share prompts are conditions; classes with prompts of their own are not."""
    by_class: dict[str, list[int]] = {}
    for place in places:
        by_class.setdefault(rows[place].group, []).append(place)
    asked = {name: Counter((rows[i].prompt, rows[i].seed) for i in part) for name, part in by_class.items()}
    seen = sum(asked.values(), Counter())
    if len(seen) == sum(len(one) for one in asked.values()):
        return {"": list(places)}
    for name, one in asked.items():
        missing = seen.keys() - one.keys()
        if missing:
            prompt, seed = min(missing)
            raise AlignError(
                f"{where}: `{prompt[:60]}` (seed {seed}) is asked under other conditions, but not under `{name}`.",
                "Evaluate every prompt under every direction; a limit of length may have dropped some.",
            )
    return by_class


def _measured(rows: Sequence[EvaluationRow], objectives: Sequence[Objective], where: str) -> list[int]:
    """Rows that were asked for all objectives: held-out pairs in the same record have other numbers."""
    places = [i for i, row in enumerate(rows) if all(one.reward in row.rewards for one in objectives)]
    if places:
        return places
    known = tuple(dict.fromkeys(name for row in rows for name in row.rewards))
    missing = next((one.reward for one in objectives if one.reward not in known), None)
    if missing is None:
        names = ", ".join(one.reward for one in objectives)
        raise AlignError(f"{where}: no sample has all of {names}.", "Choose objectives of the same samples.")
    raise AlignError(
        f"{where} has no reward `{missing}`.{did_you_mean(missing, known)}",
        f"It has {', '.join(known) or 'none'}; rewards of weight 0 or under `evaluation.rewards` are evaluated, too.",
    )
