"""Samples of a step with the trained steps of their chains, and what one pass over some of these steps computes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion.collect import DiffusionBatch
from diffusion.models.base import Conditioning
from diffusion.transitions import Interval


@dataclass(frozen=True, kw_only=True)
class ChainBatch(DiffusionBatch):
    """Samples of a step with their trajectory, and the part of its trained steps that a pass takes.

    Attributes:
        places: which trained steps, as places in `trajectory.trained`.
        steps_per_pass: how many of them go through the network together.
        idle: rows of micro-batches that have nothing to learn and are left out.
    """

    places: tuple[int, ...]
    steps_per_pass: int
    idle: Bool[Tensor, "n"]

    def select(self, rows: Int[Tensor, "m"]) -> ChainBatch:
        """The rows at these positions, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return replace(super().select(rows), idle=self.idle[rows])

    def unit_count(self) -> int:
        """Rows times trained steps."""
        return len(self) * len(self.places)

    def passes(self) -> list[ChainBatch]:
        """One for every `steps_per_pass` trained steps; a single empty one where nothing is to be learnt."""
        if bool(self.idle.all()):
            return [self]
        starts = range(0, len(self.places), self.steps_per_pass)
        return [replace(self, places=self.places[start : start + self.steps_per_pass]) for start in starts]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one pass computes on; rows are step-major: all rows of a step, then all rows of the next.

    Attributes:
        at: times of each row's step.
        dt: t_next - t of each row's step, negative.
        x: states before the steps.
        x_next: states after them.
        conditioning: one row each.
        advantages: one each.
        weight: of each row's policy term; less than 1 for a step that several rollouts share.
        log_probs: as the rollout stored them.
        means: the same for the transitions' means, where kept.
    """

    at: Interval
    dt: Float[Tensor, "m"]
    x: Float[Tensor, "m c h w"]
    x_next: Float[Tensor, "m c h w"]
    conditioning: Conditioning
    advantages: Float[Tensor, "m"]
    weight: Float[Tensor, "m"]
    log_probs: Float[Tensor, "m"]
    means: Float[Tensor, "m c h w"] | None


def piece_of(micro: ChainBatch, device: torch.device, *, edges_once: bool = False) -> Piece:
    """The steps of a pass, on the device.

    Args:
        micro: a pass of `ChainBatch.passes`.
        device: where the network is.
        edges_once: weigh a step that m rollouts share by 1 / m, as the estimator of a tree has found them.
    """
    trajectory = micro.trajectory
    assert trajectory is not None  # for the type checker: `collect` records it
    steps = [trajectory.trained[place] for place in micro.places]
    t, t_next = (_per_row([trajectory.times[j + end] for j in steps], len(micro)) for end in (0, 1))
    before, after = zip(*(trajectory.around(place) for place in micro.places), strict=True)
    chosen = list(micro.places)

    def step_major(values: Tensor) -> Tensor:
        return values[:, chosen].transpose(0, 1).flatten(0, 1).to(device)

    advantages, shares = micro.signal.advantages, micro.signal.aux.get("edge_share")
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(-1, len(trajectory.trained))
    if shares is None or not edges_once:
        shares = torch.ones_like(advantages)
    return Piece(
        at=Interval(t=t, t_next=t_next, t_second=trajectory.times[1]),
        dt=(t_next - t).to(device, torch.float32),
        x=torch.cat(before).float(),
        x_next=torch.cat(after).float(),
        conditioning=micro.conditioning.select(micro.prompt_rows.repeat(len(chosen))),
        advantages=step_major(advantages).float(),
        weight=step_major(shares).float(),
        log_probs=step_major(trajectory.log_probs),
        means=None if trajectory.means is None else step_major(trajectory.means),
    )


def _per_row(values: Sequence[float], rows: int) -> Float[Tensor, "m"]:
    """One float64 number for each row, step-major, on the CPU."""
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(rows)
