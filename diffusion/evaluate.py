"""Held-out evaluation: the same prompts and seeds at every step of every run, so that any two are paired row by row.

Noise is keyed by (prompt row, seed) alone: neither the run's seed, nor the step, nor the batch, nor the number of
processes is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from align.statistics import Interval, bootstrap_mean_interval, paired_bootstrap_interval
from align.types import Samples
from diffusion.config import EvaluationConfig, OdeSampler, RolloutConfig
from diffusion.diversity import as_features, group_diversity, small_copy
from diffusion.models.base import DiffusionModel
from diffusion.prompts import PromptSet
from diffusion.rollout import SamplerSettings, roll_out

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer

SEEDS = 2**20
"""Row numbers of the noise are prompt row * SEEDS + seed."""

ALL = "all"
"""The class of prompts whose file has no column `class`."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedRow:
    """One picture: which prompt and seed, and what the rewards say.

    Attributes:
        number: place in the evaluation, the same in each.
        rewards: by name; None where unscored.
    """

    number: int
    prompt: str
    group: str
    seed: int
    rewards: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All rows of an evaluation and the pictures that are kept.

    Attributes:
        step: finished training steps.
        weights: "ema" or "raw".
        rows: in order of `number`.
        images: pictures of the first rows.
        diversity: of each prompt's pictures (`diffusion.diversity`), in order of the prompt file; empty where each
            prompt has one picture.
    """

    step: int
    weights: str
    rows: Sequence[EvaluatedRow]
    images: Sequence[Image] = ()
    diversity: Sequence[float] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards."""
        return tuple(self.rows[0].rewards)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of prompts, in order of appearance."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def mean(self, name: str, group: str | None = None) -> Interval | None:
        """Mean of a reward with its interval, of all rows or of one class; None where nothing was scored.

        Prompts are drawn, not pictures: pictures of one prompt resemble each other.
        """
        rows = [(row.rewards[name], row.prompt) for row in self.rows if group in (None, row.group)]
        scored = [(value, prompt) for value, prompt in rows if value is not None]
        if not scored:
            return None
        return bootstrap_mean_interval([value for value, _ in scored], clusters=[prompt for _, prompt in scored])

    def metrics(self) -> dict[str, float]:
        """`eval/<reward>/mean` and `eval/<reward>/<class>`, without intervals."""
        metrics = {}
        for name in self.names:
            for key, group in [("mean", None), *((group, group) for group in self.classes)]:
                values = [row.rewards[name] for row in self.rows if group in (None, row.group)]
                scored = [value for value in values if value is not None]
                if scored:
                    metrics[f"eval/{name}/{key}"] = sum(scored) / len(scored)
        if self.diversity:
            metrics["eval/diversity"] = sum(self.diversity) / len(self.diversity)
        return metrics

    def as_json(self) -> dict:
        """The record of `evaluations/step_XXXXXX.json`."""
        return {
            "step": self.step,
            "weights": self.weights,
            "rewards": self._intervals(None),
            "classes": {group: self._intervals(group) for group in self.classes},
            "diversity": list(self.diversity),
            "rows": [
                {"prompt": row.prompt, "class": row.group, "seed": row.seed, "rewards": dict(row.rewards)}
                for row in self.rows
            ],
        }

    def _intervals(self, group: str | None) -> dict[str, dict[str, float]]:
        intervals = {name: self.mean(name, group) for name in self.names}
        return {name: value._asdict() for name, value in intervals.items() if value is not None}


def gain(before: Evaluation, after: Evaluation, name: str, group: str | None = None) -> Interval | None:
    """Mean gain of a reward over the same prompts and seeds, with its paired interval; None where no pair was scored.

    Raises:
        ValueError: the evaluations are of other prompts or seeds.
    """
    if [(row.prompt, row.seed) for row in before.rows] != [(row.prompt, row.seed) for row in after.rows]:
        raise ValueError(
            "expected two evaluations of the same prompts and seeds, in the same order; found different rows."
        )
    pairs = [
        (old.rewards[name], new.rewards[name], old.prompt)
        for old, new in zip(before.rows, after.rows, strict=True)
        if group in (None, old.group) and None not in (old.rewards[name], new.rewards[name])
    ]
    if not pairs:
        return None
    olds, news, prompts = zip(*pairs, strict=True)
    return paired_bootstrap_interval(olds, news, clusters=prompts)


def diversity_gain(before: Evaluation, after: Evaluation) -> Interval | None:
    """Mean change of the diversity within a prompt, paired by prompt; None where prompts have one picture each."""
    if not before.diversity or len(before.diversity) != len(after.diversity):
        return None
    return paired_bootstrap_interval(before.diversity, after.diversity)


def known(value: float) -> float | None:
    """A score as a record holds it: None where there is none."""
    return None if math.isnan(value) else value


def classes_of(prompts: PromptSet) -> list[str]:
    """The class of each prompt."""
    return [str(name) if name is not None else ALL for name in prompts.columns.get("class", [None] * len(prompts))]


def spread_over_classes(prompts: PromptSet) -> list[int]:
    """All prompt rows, taking the classes in turn, so that the first few rows show every class."""
    turn: dict[str, int] = {}
    order = []
    for row, group in enumerate(classes_of(prompts)):
        turn[group] = turn.get(group, 0) + 1
        order.append((turn[group], row))
    return [row for _, row in sorted(order)]


def evaluation_sampler(config: EvaluationConfig, rollout: RolloutConfig) -> SamplerSettings:
    """How held-out pictures are drawn: Euler steps of the ODE, at the rollout's resolution and batch size."""
    return SamplerSettings(
        sampler=OdeSampler(),
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        resolution=rollout.resolution,
        batch_size=rollout.batch_size,
    )


class Evaluator:
    """Draws and scores held-out pictures.

    Args:
        config: the evaluation's settings.
        model: the model family.
        prompts: the held-out prompts.
        scorer: runs the rewards.
        processes: who shares the work.
        timer: `timer(stage)` is a context manager.
        settings: of `evaluation_sampler`.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        *,
        model: DiffusionModel,
        prompts: PromptSet,
        scorer: Scorer,
        processes: Processes,
        timer: Callable,
        settings: SamplerSettings,
    ) -> None:
        self._model, self._prompts, self._scorer = model, prompts, scorer
        self._processes, self._timer = processes, timer
        self._classes = classes_of(prompts)
        self._order = spread_over_classes(prompts)
        self._seeds = config.seeds
        self._strip = self._order[: config.strip_prompts]
        self._settings = settings

    def evaluate(self, step: int, network: nn.Module, weights: str, pictures: int = 0) -> Evaluation:
        """All held-out prompts, each with every seed; the first rows show every class, one seed after the other.

        Args:
            step: finished training steps, for the record.
            network: the denoiser with the weights to evaluate in it.
            weights: their name, "ema" or "raw".
            pictures: how many of the first rows keep their picture.
        """
        wanted = [(row, seed) for seed in range(self._seeds) for row in self._order]
        return self._draw(step, network, weights, wanted, pictures)

    def strip(self, step: int, network: nn.Module, weights: str) -> Evaluation:
        """The same few prompts with seed 0: one column of the progress strip."""
        return self._draw(step, network, weights, [(row, 0) for row in self._strip], len(self._strip))

    def _draw(
        self, step: int, network: nn.Module, weights: str, wanted: Sequence[tuple[int, int]], pictures: int
    ) -> Evaluation:
        """Share the (prompt row, seed) pairs over the processes, draw and score them, bring all together in order."""
        own = list(range(self._processes.rank, len(wanted), self._processes.world))
        found = self._draw_own(own, wanted, network, pictures) if own else []
        gathered = chain.from_iterable(self._processes.gather_objects(found))
        everything = sorted(gathered, key=lambda one: one.row.number)
        return Evaluation(
            step=step,
            weights=weights,
            rows=[one.row for one in everything],
            images=[one.image for one in everything if one.image is not None],
            diversity=_diversity([one.small for one in everything], [wanted[one.row.number][0] for one in everything]),
        )

    def _draw_own(
        self, own: Sequence[int], wanted: Sequence[tuple[int, int]], network: nn.Module, pictures: int
    ) -> list[_Found]:
        """Rows `own` of this process, each with its picture if it is one of the first `pictures`.

        Pictures are scored batch by batch and then let go: there may be thousands.
        """
        prompt_row = torch.tensor([wanted[number][0] for number in own])
        seeds = torch.tensor([wanted[number][1] for number in own])
        prompts = self._prompts.select(prompt_row.tolist())
        index = prompt_row * SEEDS + seeds
        distinct, conditioning_row = prompt_row.unique(return_inverse=True)
        conditioning = self._model.encode(self._prompts.select(distinct.tolist()).prompts)
        samples = Samples(index=index, group_ids=prompt_row, prompts=prompts.prompts, columns=prompts.columns)
        found: list[_Found] = []
        for drawn in roll_out(
            self._model, network, conditioning, conditioning_row, index, self._settings, self._timer, "evaluation"
        ):
            table = self._scorer.score(replace(samples.select(drawn.rows.tolist()), images=drawn.images))
            for place, values, image in zip(drawn.rows.tolist(), table.values.tolist(), drawn.images, strict=True):
                row = EvaluatedRow(
                    number=own[place],
                    prompt=prompts.prompts[place],
                    group=self._classes[int(prompt_row[place])],
                    seed=int(seeds[place]),
                    rewards={name: known(value) for name, value in zip(table.names, values, strict=True)},
                )
                found.append(_Found(row, image if row.number < pictures else None, small_copy(image)))
        return found


class _Found(NamedTuple):
    """One picture on its way to the others: its record, itself if it is kept, and what the diversity compares."""

    row: EvaluatedRow
    image: Image | None
    small: bytes


def _diversity(copies: Sequence[bytes], prompt_rows: Sequence[int]) -> list[float]:
    if len(set(prompt_rows)) == len(prompt_rows):
        return []
    return group_diversity(as_features(copies), torch.tensor(prompt_rows)).tolist()
