"""Diffusion-DPO on-line: of the pictures of each prompt the best and the worst make a pair, as they are drawn.

    z = -beta/2 [ (L_w - L_l) - (Lref_w - Lref_l) ],    loss = -log sigmoid(z),    L = mean((m - target)^2) at x_t

with one time and one noise for both pictures and both networks; m and target are velocities on flow models (Flow-DPO),
noise on most others (Diffusion-DPO). No advantage, no likelihood ratio: only who is better counts.

Papers (Wallace et al., arXiv:2311.12908; Liu et al., arXiv:2501.13918) -> released code -> here:

* pairs: stored ones -> the best and the worst of each group -> the same. A group whose scores are all the same, or that
  has less than two of them, makes no pair; it counts as a place with loss 0, so an update is a mean over prompts.
* beta: 2000 to 5000 for noise prediction -> 100 for velocities -> `beta`.
* reference: the model before training -> the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Int
from torch import Tensor

from align.pairs import Pairs, best_and_worst
from align.types import LossOutput
from diffusion.collect import Collector
from diffusion.config import OnlineDpoConfig
from diffusion.data import process_rows
from diffusion.exchange import WholeStep, fetch_latents, whole_step
from diffusion.latent_batches import PairBatch
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.pair_objective import dpo_output
from diffusion.probe import Prober

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes


class OnlineDpo:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        processes: who shares the pairs.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self, collector: Collector, *, model: DiffusionModel, policy: Policy, processes: Processes, timer: Callable
    ) -> None:
        config = collector.config
        self.config = cast("OnlineDpoConfig", config.algorithm)
        self._updates = config.training.updates_per_rollout
        self._collector, self._policy = collector, policy
        self._processes, self._timer = processes, timer
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._step = 0
        self._found: dict[str, float] = {}

    def collect(self, step: int) -> PairBatch:
        """Roll out, score, and form the pairs of all groups; each process gets its share of them."""
        self._step = step
        drawn = self._collector(step, self._policy.module)
        with self._timer("advantage"):
            everything = whole_step(drawn, self._processes)
            pairs = best_and_worst(everything.scores, everything.group_ids)
            places = pair_of_group(everything, pairs)
            own = process_rows(len(places), self._updates, self._processes.rank, self._processes.world)
            there = places[own] >= 0
            # A place without a pair takes the first rows of the step: whatever they are, they weigh nothing.
            chosen, rejected = (_taken(rows, places) for rows in (pairs.chosen, pairs.rejected))
            wanted = torch.cat([chosen[own], rejected[own]])
            latents = fetch_latents(drawn, torch.cat([chosen, rejected]), wanted, self._processes)
        self._found = {"pairs": float(len(pairs)), "pairs/score_margin": _mean(pairs.margin)}
        return PairBatch(
            index=own,
            chosen=latents[: len(own)],
            rejected=latents[len(own) :],
            conditioning=self._collector.encode(everything.prompts, everything.groups()[own]),
            prompt_rows=torch.arange(len(own)),
            weights=there.float(),
            share=len(pairs) / len(places),
            samples=drawn.samples,
            rewards=drawn.rewards,
            signal=drawn.signal,
        )

    def prepare_update(self, update: int, rows: PairBatch) -> None:
        """Nothing: the reference is the base model."""

    def loss(self, micro: PairBatch) -> LossOutput:
        """See `dpo_output`."""
        settings = self.config
        return dpo_output(self._prober, micro, self._step, beta=settings.beta, label_smoothing=settings.label_smoothing)

    def after_step(self, step: int) -> Mapping[str, float]:
        """How many pairs there were, and by how much their scores differ."""
        return self._found

    def state_dict(self) -> State:
        """The statistics of the reward pipeline."""
        return joined_state(pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))


def pair_of_group(everything: WholeStep, pairs: Pairs) -> Int[Tensor, "p"]:
    """Number of the pair of each group, in the order of `WholeStep.groups`; -1 for a group without one."""
    number = {int(everything.group_ids[row]): pair for pair, row in enumerate(pairs.chosen.tolist())}
    return torch.tensor([number.get(group, -1) for group in everything.groups().tolist()], dtype=torch.int64)


def _taken(rows: Int[Tensor, "m"], places: Int[Tensor, "p"]) -> Int[Tensor, "p"]:
    """Row of each place; row 0 of the step where it has no pair."""
    return torch.cat([rows, torch.zeros(1, dtype=torch.int64)])[places]


def _mean(margin: Tensor) -> float:
    return float(margin.double().mean()) if len(margin) else float("nan")
