"""Rewards of the pictures that the states of a way imply: before the first trained step and after each.

    R_k = reward of decode(E[x_0 | x_j])        x_j: the state after k trained steps, in one step of the network

The prediction costs nothing, the rollout calls the network at x_j anyway; decoding and scoring do. After the last
trained step it is the final picture if the way ends there, with the reward that it has already; otherwise it is the
prediction at the state from which the untrained steps go on. What untrained steps between two trained ones
add counts to the later one.

They are made only where an estimator reads `done_reward_seq`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from align.types import RewardTable, Samples
from diffusion.models.base import DiffusionModel
from diffusion.trajectory import Trajectory

if TYPE_CHECKING:
    from align.rewards.scorer import Scorer


def implied_rewards(
    model: DiffusionModel,
    scorer: Scorer,
    samples: Samples,
    trajectory: Trajectory,
    final: RewardTable,
    timer: Callable,
    batch_size: int,
) -> tuple[RewardTable, ...]:
    """One table per state, T + 1 of them, rows in the order of the samples.

    Args:
        model: decodes.
        scorer: runs the rewards.
        samples: prompts and numbers of this process's rows.
        trajectory: with `implied` latents.
        final: rewards of the finished pictures.
        timer: `timer(stage)` is a context manager; stages "decode" and "reward".
        batch_size: pictures decoded and scored at once.

    Raises:
        ValueError: the rollout kept no predictions.
    """
    if trajectory.implied is None:
        raise ValueError("the rollout kept no predicted clean latents. Record it with keep_implied=True.")
    states = trajectory.implied.unbind(dim=1)
    ends = trajectory.trained[-1] + 2 == len(trajectory.times)  # the last state is the finished latent
    new = states[:-1] if ends else states
    scored = [_scored(model, scorer, samples, latents, timer, batch_size) for latents in new]
    return (*scored, final) if ends else tuple(scored)


def _scored(
    model: DiffusionModel,
    scorer: Scorer,
    samples: Samples,
    latents: Float[Tensor, "n c h w"],
    timer: Callable,
    batch_size: int,
) -> RewardTable:
    tables = []
    for rows in torch.arange(len(latents)).split(batch_size):
        with timer("decode"):
            images = model.decode(latents[rows.to(latents.device)])
        with timer("reward"):
            tables.append(scorer.score(replace(samples.select(rows.tolist()), images=images)))
    return replace(tables[0], values=torch.cat([table.values for table in tables]))
