"""Collect a step: prompts -> rollout -> rewards -> gather -> shape and compare -> this process's batch.

Shared by every on-line method. Each process scores its own pictures; the signal is then computed by every process on
all rows of the step, in global order, so that advantages do not depend on the number of processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.rewards.scorer import AllUnscored
from align.types import RewardTable, Samples, Signal
from diffusion.baselines import Baselines, Drawing
from diffusion.branches import noise_keys
from diffusion.config import DiffusionRun
from diffusion.data import StepRows, process_rows, step_rows
from diffusion.directions.ask import means_by_class
from diffusion.implied import implied_rewards
from diffusion.inputs import StepContext, builders_for, providers_for, scores_the_way
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.prompts import PromptSet
from diffusion.rollout import Drawn, Recording, SamplerSettings, roll_out
from diffusion.trajectory import Trajectory

if TYPE_CHECKING:
    from align.adapter.use import PromptWeigher
    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer
    from align.shaping.pipeline import SignalPipeline
    from diffusion.directions.ask import Asker


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
        trajectory: trained steps of the way, for methods that learn from them.
        old_log_probs: log-probabilities under the policy that drew the samples; NaN where that still is the current.
    """

    samples: Samples
    rewards: RewardTable
    signal: Signal
    latents: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    trajectory: Trajectory | None = None
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
            trajectory=None if self.trajectory is None else self.trajectory.select(rows),
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


def in_order(batches: Sequence[Drawn], table: RewardTable) -> tuple[Drawn, RewardTable]:
    """All batches as one, and their rewards, in the order in which the rows were asked for."""
    order = torch.cat([batch.rows for batch in batches]).argsort()
    images = [image for batch in batches for image in batch.images]
    ways = [batch.trajectory for batch in batches if batch.trajectory is not None]
    latents = torch.cat([batch.latents for batch in batches])
    drawn = Drawn(
        rows=torch.arange(len(order)),
        latents=latents[order.to(latents.device)],
        images=[images[row] for row in order.tolist()],
        trajectory=Trajectory.cat(ways).select(order) if ways else None,
    )
    return drawn, replace(table, values=table.values[order])


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
        reference: inside it the network is the policy from before training, for estimators that compare with it.
        weigher: weighs prompts, where `pipeline.weights` is an adapter.
        asker: draws and tells directions, where the run has some.
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
        reference: Callable[[], AbstractContextManager[nn.Module]] | None = None,
        weigher: PromptWeigher | None = None,
        asker: Asker | None = None,
    ) -> None:
        builders_for(pipeline.needs(), providers_for(config))  # what nobody can bring is an error now
        self.config = config
        self.pipeline = pipeline
        self._model, self._prompts, self._scorer = model, prompts, scorer
        self._weigher, self._asker = weigher, asker
        self.processes, self._timer = processes, timer
        rollout = config.rollout
        self._settings = SamplerSettings(
            sampler=rollout.sampler,
            num_inference_steps=rollout.num_inference_steps,
            guidance_scale=rollout.guidance_scale,
            resolution=rollout.resolution,
            batch_size=rollout.batch_size,
        )
        self._baselines = Baselines(
            model=model,
            scorer=scorer,
            settings=self._settings,
            processes=processes,
            timer=timer,
            seed=config.seed,
            reference=reference,
        )

    def __call__(self, step: int, network: nn.Module, recording: Recording | None = None) -> DiffusionBatch:
        """Roll out, score and compare the samples of a step.

        Args:
            step: number of the step, from 1; prompts and noise are functions of it and the seed.
            network: the denoiser with the weights of the policy that rolls out.
            recording: what is kept of the way; None = only its end.

        Raises:
            AllUnscored: no reward could score any sample of any process; the reasons are in the message.
        """
        rollout, processes = self.config.rollout, self.processes
        everything = step_rows(
            len(self._prompts), rollout.prompts_per_step, rollout.group_size, self.config.seed, step - 1
        )
        prompt_index, group_ids = everything
        index = process_rows(
            len(prompt_index), self.config.training.updates_per_rollout, processes.rank, processes.world
        )
        keys = self._noise_keys(group_ids, recording)
        rows = self._prompts.select(prompt_index[index].tolist())
        texts = dict(zip(group_ids[index].tolist(), rows.prompts, strict=True))
        groups, prompt_rows = group_ids[index].unique(return_inverse=True)
        conditioning = self.encode(texts, groups)
        samples = Samples(index=index, group_ids=group_ids[index], prompts=rows.prompts, columns=rows.columns)

        def score(drawn: Drawn) -> RewardTable:
            return self._scorer.score(replace(samples.select(drawn.rows.tolist()), images=drawn.images))

        kept = recording
        if recording is not None:
            kept = replace(recording, keep_implied=scores_the_way(self.pipeline.config))
        drawn = roll_out(
            self._model,
            network,
            conditioning,
            prompt_rows,
            index,
            self._settings,
            self._timer,
            self.config.seed,
            step,
            keys=None if keys is None else keys[index],
            recording=kept,
        )
        found, own = in_order(*scored_in_background(drawn, score, self._timer))
        drawing = Drawing(
            step=step,
            samples=samples,
            conditioning=conditioning,
            prompt_rows=prompt_rows,
            network=network,
            keys=None if keys is None else keys[index],
            recording=recording,
        )
        inputs = self._inputs(everything, drawing, keys, found.trajectory, own)
        with self._timer("advantage"):
            signal = self._signal(own, index, group_ids, classes=self._classes(everything), **inputs)
        return DiffusionBatch(
            samples=replace(samples, images=found.images),
            rewards=own,
            signal=signal,
            latents=found.latents,
            conditioning=conditioning,
            prompt_rows=prompt_rows,
            trajectory=None if found.trajectory is None else replace(found.trajectory, implied=None),
        )

    def encode(self, texts: Mapping[int, str], groups: Int[Tensor, "p"]) -> Conditioning:
        """One row for each group: its prompt, under the direction that the model is told for it.

        Args:
            texts: prompt of each group id.
            groups: the wanted ids.
        """
        with self._timer("encode"):
            prompts = [texts[group] for group in groups.tolist()]
            if self._asker is None:
                return self._model.encode(prompts)
            return self._asker.encode(self._model, prompts, [self._asker.told(group) for group in groups.tolist()])

    def _classes(self, rows: StepRows) -> list[str]:
        """Class of every row's prompt, or of its direction; nothing where prompts have none."""
        if self._asker is not None:
            return self._asker.classes(rows.group_ids)
        named = self._prompts.columns.get("class")
        return [] if named is None else [str(named[row] or "") for row in rows.prompt_index.tolist()]

    def _noise_keys(self, group_ids: Int[Tensor, "all"], recording: Recording | None) -> Int[Tensor, "all t1"] | None:
        """Which rows share noise; None where none do."""
        rollout = self.config.rollout
        branching = None if recording is None else recording.branching
        if branching is None and not rollout.share_initial_noise:
            return None
        splits = () if recording is None or branching is None else [recording.plan.trained[i] for i in branching.at]
        return noise_keys(
            group_ids,
            rollout.num_inference_steps,
            share_initial=rollout.share_initial_noise,
            splits=splits,
            factor=2 if branching is None else branching.factor,
        )

    def _inputs(
        self,
        rows: StepRows,
        drawing: Drawing,
        keys: Int[Tensor, "all t1"] | None,
        trajectory: Trajectory | None,
        own: RewardTable,
    ) -> dict[str, Any]:
        """What the estimators read beside rewards and groups, for all rows of the step in global order; a collective.

        Any: fields of `AdvantageInputs`, each with its own type.
        """
        context = StepContext(
            step=drawing.step,
            prompt_index=rows.prompt_index,
            group_ids=rows.group_ids,
            rescored=lambda wanted: self._baselines(wanted, drawing),
            of_all_rows=lambda values: self._of_all_rows(values, drawing.samples.index),
            trajectory=trajectory,
            keys=keys,
            implied=None if trajectory is None else lambda: self._implied(drawing.samples, trajectory, own),
            prompt_weights=None if self._weigher is None else lambda: self._weighed(rows.prompt_index),
            drawn_directions=None if (asker := self._asker) is None else lambda: asker.weights(rows.group_ids),
        )
        builders = builders_for(self.pipeline.needs(), providers_for(self.config))
        return {name: build(context) for name, build in builders.items()}

    def _weighed(self, prompt_index: Int[Tensor, "all"]) -> Mapping[str, Float[Tensor, "all"]]:
        """Reward -> weight of each row's prompt."""
        assert self._weigher is not None  # for the type checker
        return self._weigher.by_name(self._prompts.select(prompt_index.tolist()).prompts)

    def _implied(self, samples: Samples, trajectory: Trajectory, own: RewardTable) -> tuple[RewardTable, ...]:
        """Rewards on the way, of all rows of the step in global order; a collective.

        Raises:
            AllUnscored: no picture at some place of the way could be scored.
        """
        tables = implied_rewards(
            self._model, self._scorer, samples, trajectory, own, self._timer, self._settings.batch_size
        )
        whole = tuple(replace(table, values=self._of_all_rows(table.values, samples.index)) for table in tables)
        for table in whole:
            if table.values.isnan().all():
                raise AllUnscored(table.problems)
        return whole

    def _signal(
        self,
        own: RewardTable,
        index: Int[Tensor, "n"],
        group_ids: Int[Tensor, "all"],
        classes: Sequence[str],
        **inputs: Any,
    ) -> Signal:
        """The signal of all rows of the step, cut down to this process's rows. `inputs`: of `_inputs`."""
        values = self._of_all_rows(own.values, index)
        problems = merge_problems(self.processes.gather_objects(own.problems))
        everything = replace(own, values=values, problems=problems)
        signal = self.pipeline(everything, group_ids, update=True, classes=classes, **inputs)
        if signal.scores.isnan().all():
            raise AllUnscored(everything.problems)
        if self._asker is not None:
            signal = replace(signal, stats={**signal.stats, **means_by_class(own.names, values, classes)})
        return signal.select(index)

    def _of_all_rows(self, values: Float[Tensor, "n k"], index: Int[Tensor, "n"]) -> Float[Tensor, "all k"]:
        """Values of the rows of all processes in global order; a collective."""
        return self.processes.gather_rows(values)[self.processes.gather_rows(index).argsort()]
