"""Rewards of pictures that nobody trains on: greedy ones, or those of the policy from before training.

They are made only where an estimator compares with them (`diffusion/inputs.py`). Each process draws and scores the
baselines of its own samples; the rows of all processes are then put together like the samples' rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor, nn

from align.errors import AlignError
from align.rewards.scorer import AllUnscored
from align.types import RewardTable, Samples
from diffusion.config import OdeSampler
from diffusion.inputs import FurtherRollout
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.rollout import Recording, SamplerSettings, roll_out

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How this process's samples of a step were drawn.

    Attributes:
        step: number of the step.
        samples: prompts, global row numbers, group ids; no pictures yet.
        conditioning: one row per distinct prompt.
        prompt_rows: row of `conditioning` for each sample.
        network: the denoiser with the weights that rolled out.
        keys: which of these rows share noise, None where none do.
        recording: what was kept of the way, and which steps were noisy.
    """

    step: int
    samples: Samples
    conditioning: Conditioning
    prompt_rows: Int[Tensor, "n"]
    network: nn.Module
    keys: Int[Tensor, "n t1"] | None = None
    recording: Recording | None = None


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Draws and scores further rollouts.

    Attributes:
        model: the model family.
        scorer: runs the rewards.
        settings: how the samples are drawn.
        processes: who else draws.
        timer: `timer(stage)` is a context manager.
        seed: of the run.
        reference: inside it the network is the policy from before training; None where nobody kept it.
    """

    model: DiffusionModel
    scorer: Scorer
    settings: SamplerSettings
    processes: Processes
    timer: Callable
    seed: int
    reference: Callable[[], AbstractContextManager[nn.Module]] | None = None

    def __call__(self, wanted: FurtherRollout, drawing: Drawing) -> RewardTable:
        """Rewards of the baseline of every row of the step, in global order; a collective.

        Raises:
            AlignError: the policy from before training is wanted and nobody kept it.
            AllUnscored: no reward could score any of them; the reasons are in the message.
        """
        own = self._of_prompts(wanted, drawing) if wanted.deterministic else self._of_samples(wanted, drawing)
        order = self.processes.gather_rows(drawing.samples.index).argsort()
        values = self.processes.gather_rows(own.values)[order]
        if values.isnan().all():
            raise AllUnscored(own.problems)
        return replace(own, values=values)

    def _of_prompts(self, wanted: FurtherRollout, drawing: Drawing) -> RewardTable:
        """One picture per prompt, without random steps; its initial noise is keyed by the prompt's group."""
        groups, members, sizes = drawing.samples.group_ids.unique(return_inverse=True, return_counts=True)
        first = members.argsort(stable=True)[sizes.cumsum(0) - sizes]  # of each group, its first sample here
        rows = replace(drawing, samples=drawing.samples.select(first.tolist()), prompt_rows=drawing.prompt_rows[first])
        settings = replace(self.settings, sampler=OdeSampler())
        table = self._scored(wanted, rows, settings, groups, (self.seed, drawing.step, wanted.name), None, None)
        return replace(table, values=table.values[members])

    def _of_samples(self, wanted: FurtherRollout, drawing: Drawing) -> RewardTable:
        """One picture per sample by the same rule, from noise of its own."""
        key = (self.seed, drawing.step, wanted.name)
        return self._scored(wanted, drawing, self.settings, drawing.samples.index, key, drawing.keys, drawing.recording)

    def _scored(
        self,
        wanted: FurtherRollout,
        drawing: Drawing,
        settings: SamplerSettings,
        index: Int[Tensor, "m"],
        key: tuple[int | str, ...],
        keys: Int[Tensor, "m t1"] | None,
        recording: Recording | None,
    ) -> RewardTable:
        """Draw and score, batch by batch, in the order of the rows."""
        tables: list[tuple[Tensor, RewardTable]] = []
        with self._policy(wanted, drawing.network) as network:
            for drawn in roll_out(
                self.model,
                network,
                drawing.conditioning,
                drawing.prompt_rows,
                index,
                settings,
                self.timer,
                *key,
                keys=keys,
                recording=recording,
            ):
                with self.timer("reward"):
                    rows = drawing.samples.select(drawn.rows.tolist())
                    tables.append((drawn.rows, self.scorer.score(replace(rows, images=drawn.images))))
        order = torch.cat([rows for rows, _ in tables]).argsort()
        return replace(tables[0][1], values=torch.cat([table.values for _, table in tables])[order])

    def _policy(self, wanted: FurtherRollout, network: nn.Module) -> AbstractContextManager[nn.Module]:
        if not wanted.reference:
            return nullcontext(network)
        if self.reference is None:
            raise AlignError(
                "an estimator compares with the policy from before training, which this run has not kept.",
                "Train adapters (`model.lora`), or make the policy with keep_reference=True.",
            )
        return self.reference()
