"""Held-out evaluation: the same prompts and seeds at every step of every run, so that any two are paired row by row.

Noise is keyed by (prompt row, seed) alone: neither the run's seed, nor the step, nor the batch, nor the number of
processes is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from align.heldout import ALL, EvaluatedRow, HeldoutRows, gain, known, user_groups
from align.statistics import Interval, paired_bootstrap_interval
from align.types import Samples
from diffusion.config import EvaluationConfig, OdeSampler, RolloutConfig
from diffusion.diversity import as_features, group_diversity, small_copy
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.prompts import PromptSet
from diffusion.rollout import SamplerSettings, roll_out

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer

__all__ = [
    "ALL",
    "EvaluatedRow",
    "Evaluation",
    "Evaluator",
    "classes_of",
    "diversity_gain",
    "evaluation_sampler",
    "gain",
    "known",
    "spread_over_classes",
]

SEEDS = 2**20
"""Row numbers of the noise are prompt row * SEEDS + seed."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(HeldoutRows):
    """All rows of an evaluation and the pictures that are kept.

    Attributes:
        images: pictures of the first rows.
        diversity: of each prompt's pictures (`diffusion.diversity`), in order of the prompt file; empty where each
            prompt has one picture.
    """

    images: Sequence[Image] = ()
    diversity: Sequence[float] = ()

    def metrics(self) -> dict[str, float]:
        """`eval/<reward>/mean`, `eval/<reward>/<class>` and `eval/diversity`, without intervals."""
        metrics = super().metrics()
        if self.diversity:
            metrics["eval/diversity"] = sum(self.diversity) / len(self.diversity)
        return metrics

    def as_json(self) -> dict[str, Any]:
        """The record of `evaluations/step_XXXXXX.json`."""
        return {**super().as_json(), "diversity": list(self.diversity)}


def diversity_gain(before: Evaluation, after: Evaluation) -> Interval | None:
    """Mean change of the diversity within a prompt, paired by prompt; None where prompts have one picture each."""
    if not before.diversity or len(before.diversity) != len(after.diversity):
        return None
    return paired_bootstrap_interval(before.diversity, after.diversity)


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
        self._user_groups = user_groups(prompts.columns, config.group_column, len(prompts))
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

    def _encoded(self, rows: Sequence[int]) -> Conditioning:
        """What the network is told of these prompt rows."""
        return self._model.encode(self._prompts.select(rows).prompts)

    def _noise_row(self, prompt_row: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """The row that keys the noise of each prompt row."""
        return prompt_row

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
        index = self._noise_row(prompt_row) * SEEDS + seeds
        distinct, conditioning_row = prompt_row.unique(return_inverse=True)
        conditioning = self._encoded(distinct.tolist())
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
                    user_group=self._user_groups[int(prompt_row[place])],
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
