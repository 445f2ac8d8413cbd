"""A slow copy of the policy: AWM is pulled towards it, DiffusionNFT rolls out with it and takes it for the old policy.

after step s:  copy <- d copy + (1 - d) current,    d = d(s) of the schedule
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import singledispatch
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from diffusion.config.lagged import ConstantLag, LagSchedule, LinearLag

if TYPE_CHECKING:
    from align.engine.adapters import Policy


@singledispatch
def lag_decay(schedule: Any, step: int) -> float:
    """Share that the copy keeps of itself after step `step`, from 1 (`Any`: the members of `LagSchedule`)."""
    raise TypeError(f"no schedule for {type(schedule).__name__}")


@lag_decay.register
def _(schedule: ConstantLag, step: int) -> float:
    return schedule.decay


@lag_decay.register
def _(schedule: LinearLag, step: int) -> float:
    return min(schedule.max_decay, schedule.per_step * max(step - schedule.start, 0))


class LaggedPolicy:
    """The copy. It begins as the policy that it is made from.

    Attributes:
        weights: its weights by the policy's stable names.

    Args:
        policy: the trained network.
        schedule: how slowly the copy follows.
    """

    def __init__(self, policy: Policy, schedule: LagSchedule) -> None:
        self.weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
        self._policy, self._schedule = policy, schedule

    def swapped(self) -> AbstractContextManager[nn.Module]:
        """Inside, the network computes with the copy's weights, without gradient. Yields the module to call."""
        return self._policy.swapped(self.weights)

    @torch.no_grad()
    def follow(self, step: int) -> float:
        """Take a step towards the current policy; returns the share that was kept."""
        decay = lag_decay(self._schedule, step)
        current = self._policy.state_dict()
        for name, weight in self.weights.items():
            weight.mul_(decay).add_(current[name], alpha=1 - decay)
        return decay

    def state_dict(self) -> Mapping[str, Tensor]:
        """Its weights."""
        return self.weights

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Inverse of `state_dict`. A weight that is not in `state` starts from the current policy's."""
        current = self._policy.state_dict()
        for name, weight in self.weights.items():
            weight.copy_(cast("Tensor", state.get(name, current[name])))  # `state_dict` has tensors only
