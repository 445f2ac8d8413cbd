"""Collect a step: prompts -> rollout -> rewards -> gather -> shape and compare -> this process's batch.

Shared by every on-line method. Each process scores its own pictures; the signal is then computed by every process on
all rows of the step, in global order, so that advantages do not depend on the number of processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.rewards.scorer import AllUnscored
from align.types import RewardTable, Samples, Signal
from diffusion.config import DiffusionRun
from diffusion.data import process_rows, step_rows
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.prompts import PromptSet
from diffusion.rollout import Drawn, SamplerSettings, roll_out

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer
    from align.shaping.pipeline import SignalPipeline


@dataclass(frozen=True, kw_only=True)
class DiffusionBatch:
    """This process's samples of a step; implements `align.types.Batch`.

    Attributes:
        samples: prompts, pictures, global row numbers, group ids.
        rewards: raw rewards of these rows.
        signal: their scores and advantages; its `stats` are of all rows of the step.
        latents: final latents x0, float32.
        conditioning: one row per distinct prompt, shared by all selections.
        prompt_rows: row of `conditioning` for each sample.
        old_log_probs: log-probabilities under the policy that drew the samples; NaN where that still is the current.
    """

    samples: Samples
    rewards: RewardTable
    signal: Signal
    latents: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    old_log_probs: Float[Tensor, "n t"] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return replace(
            self,
            samples=self.samples.select(rows.tolist()),
            rewards=replace(self.rewards, values=self.rewards.values[rows]),
            signal=self.signal.select(rows),
            latents=self.latents[rows.to(self.latents.device)],
            prompt_rows=self.prompt_rows[rows],
            old_log_probs=None
            if self.old_log_probs is None
            else self.old_log_probs[rows.to(self.old_log_probs.device)],
        )


Problems = Mapping[str, Mapping[str, int]]
"""Reward -> message -> how many samples it left unscored."""


def merge_problems(parts: Iterable[Problems]) -> Problems:
    """Counts of several batches or processes together."""
    merged: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.items():
            merged.setdefault(name, Counter()).update(counts)
    return {name: dict(counts) for name, counts in merged.items()}


def joined_tables(tables: Sequence[RewardTable]) -> RewardTable:
    """The rows of all tables, one table after the other."""
    values = torch.cat([table.values for table in tables])
    return replace(tables[0], values=values, problems=merge_problems(table.problems for table in tables))


def scored_in_background(
    drawn: Iterator[Drawn], score: Callable[[Drawn], RewardTable], timer: Callable
) -> tuple[list[Drawn], RewardTable]:
    """Score each finished batch in a thread while the next one is sampled.

    One thread, so that rewards are called in the order of the batches; only the wait at the end counts as reward time.
    """
    batches: list[Drawn] = []
    futures: list[Future[RewardTable]] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards") as pool:
        for batch in drawn:
            batches.append(batch)
            futures.append(pool.submit(score, batch))
        with timer("reward"):
            tables = [future.result() for future in futures]
    return batches, joined_tables(tables)


COLLECTED = ("prompt_ids", "step")
"""Inputs of estimators that a step brings, beside rewards and groups."""


class Collector:
    """Steps of samples for an on-line method.

    Args:
        config: the run's settings.
        model: the model family.
        prompts: the training prompts.
        scorer: runs the rewards.
        pipeline: rewards -> signal; its state is part of the algorithm's state.
        processes: who else collects.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self,
        config: DiffusionRun,
        *,
        model: DiffusionModel,
        prompts: PromptSet,
        scorer: Scorer,
        pipeline: SignalPipeline,
        processes: Processes,
        timer: Callable,
    ) -> None:
        pipeline.check_collected(COLLECTED)
        self.config = config
        self.pipeline = pipeline
        self._model, self._prompts, self._scorer = model, prompts, scorer
        self._processes, self._timer = processes, timer
        rollout = config.rollout
        self._settings = SamplerSettings(
            sampler=rollout.sampler,
            num_inference_steps=rollout.num_inference_steps,
            guidance_scale=rollout.guidance_scale,
            resolution=rollout.resolution,
            batch_size=rollout.batch_size,
        )

    def __call__(self, step: int, network: nn.Module) -> DiffusionBatch:
        """Roll out, score and compare the samples of a step.

        Args:
            step: number of the step, from 1; prompts and noise are functions of it and the seed.
            network: the denoiser with the weights of the policy that rolls out.

        Raises:
            AllUnscored: no reward could score any sample of any process; the reasons are in the message.
        """
        rollout, processes = self.config.rollout, self._processes
        prompt_index, group_ids = step_rows(
            len(self._prompts), rollout.prompts_per_step, rollout.group_size, self.config.seed, step - 1
        )
        index = process_rows(
            len(prompt_index), self.config.training.updates_per_rollout, processes.rank, processes.world
        )
        rows = self._prompts.select(prompt_index[index].tolist())
        distinct, prompt_rows = prompt_index[index].unique(return_inverse=True)
        with self._timer("encode"):
            conditioning = self._model.encode(self._prompts.select(distinct.tolist()).prompts)
        samples = Samples(index=index, group_ids=group_ids[index], prompts=rows.prompts, columns=rows.columns)

        def score(drawn: Drawn) -> RewardTable:
            return self._scorer.score(replace(samples.select(drawn.rows.tolist()), images=drawn.images))

        drawn = roll_out(
            self._model, network, conditioning, prompt_rows, index, self._settings, self._timer, self.config.seed, step
        )
        batches, own = scored_in_background(drawn, score, self._timer)
        with self._timer("advantage"):
            signal = self._signal(own, index, group_ids, prompt_ids=prompt_index, step=step)
        return DiffusionBatch(
            samples=replace(samples, images=[image for batch in batches for image in batch.images]),
            rewards=own,
            signal=signal,
            latents=torch.cat([batch.latents for batch in batches]),
            conditioning=conditioning,
            prompt_rows=prompt_rows,
        )

    def _signal(
        self, own: RewardTable, index: Int[Tensor, "n"], group_ids: Int[Tensor, "all"], **inputs: Tensor | int
    ) -> Signal:
        """The signal of all rows of the step, cut down to this process's rows. `inputs`: what `COLLECTED` names."""
        gathered_index = self._processes.gather_rows(index)
        values = self._processes.gather_rows(own.values)
        problems = merge_problems(self._processes.gather_objects(own.problems))
        everything = replace(own, values=values[gathered_index.argsort()], problems=problems)
        signal = self.pipeline(everything, group_ids, update=True, **inputs)
        if signal.scores.isnan().all():
            raise AllUnscored(everything.problems)
        return signal.select(index)
