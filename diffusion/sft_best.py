"""Supervised fine-tuning on the best picture of each prompt, as it is drawn (rejection sampling).

    loss = mean over prompts of L_best,    L = mean((m(x_t, t, c) - target)^2)

A baseline. The released code passes all pictures of a group with weights 1 and 0 and divides by their number; here only
the best one is passed, and the mean is over prompts: the same direction, larger by the group size, for a fraction of
the cost. Of equal best scores the first counts; a group without a score has weight 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Int
from torch import Tensor

from align.types import LossOutput
from diffusion.collect import Collector
from diffusion.config import SftBestConfig
from diffusion.data import process_rows
from diffusion.exchange import WholeStep, fetch_latents, whole_step
from diffusion.latent_batches import LatentBatch
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.probe import Prober
from diffusion.regression_objective import regression_output

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes


class SftBest:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        processes: who shares the best pictures.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self, collector: Collector, *, model: DiffusionModel, policy: Policy, processes: Processes, timer: Callable
    ) -> None:
        config = collector.config
        self.config = cast("SftBestConfig", config.algorithm)
        self._updates = config.training.updates_per_rollout
        self._collector, self._policy = collector, policy
        self._processes, self._timer = processes, timer
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._step = 0

    def collect(self, step: int) -> LatentBatch:
        """Roll out, score, and take the best of every group; each process gets its share of them."""
        self._step = step
        drawn = self._collector(step, self._policy.module)
        with self._timer("advantage"):
            everything = whole_step(drawn, self._processes)
            best = best_of_groups(everything)
            own = process_rows(len(best), self._updates, self._processes.rank, self._processes.world)
            latents = fetch_latents(drawn, best, best[own], self._processes)
            scored = ~everything.scores[best[own]].isnan()
        return LatentBatch(
            index=own,
            latents=latents,
            conditioning=self._collector.encode(everything.prompts, everything.groups()[own]),
            prompt_rows=torch.arange(len(own)),
            weights=scored.float(),
            samples=drawn.samples,
            rewards=drawn.rewards,
            signal=drawn.signal,
        )

    def prepare_update(self, update: int, rows: LatentBatch) -> None:
        """Nothing."""

    def loss(self, micro: LatentBatch) -> LossOutput:
        """See `regression_output`."""
        return regression_output(self._prober, micro, self._step, kl_beta=self.config.kl_beta)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def state_dict(self) -> State:
        """The statistics of the reward pipeline."""
        return joined_state(pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))


def best_of_groups(everything: WholeStep) -> Int[Tensor, "p"]:
    """Global row of the best sample of each group, in the order of `WholeStep.groups`.

    Of equal ones the first; the first of all where a group has no score.
    """
    scores = everything.scores.nan_to_num(float("-inf"))
    rows = [(everything.group_ids == group).nonzero().flatten() for group in everything.groups().tolist()]
    return torch.stack([own[scores[own].argmax()] for own in rows])
