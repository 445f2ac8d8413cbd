"""What a rollout leaves for the loss: the states around the trained steps, once each, and the steps' log-probabilities.

x_j and x_(j+1) of neighbouring trained steps share a state. In a lower storage precision the rollout goes on from the
rounded state and its log-probability is that of the rounded state, so that an update sees what the rollout saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.branches import Nodes
from diffusion.step import Step


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Trained steps of n rollouts.

    Attributes:
        times: of the whole schedule, t + 1 numbers.
        trained: the trained steps, ascending; step j goes from times[j] to times[j + 1].
        states: latents at the times `stored(trained)`.
        log_probs: of each trained step when it was drawn, float32.
        means: of each trained step's transition, where GRPO-Guard asks for them.
        implied: clean latents that the states imply, before the first trained step and after each, where an estimator
            reads their rewards.
    """

    times: tuple[float, ...]
    trained: tuple[int, ...]
    states: Float[Tensor, "n s c h w"]
    log_probs: Float[Tensor, "n w"]
    means: Float[Tensor, "n w c h w"] | None = None
    implied: Float[Tensor, "n w1 c h w"] | None = None

    def __len__(self) -> int:
        return len(self.log_probs)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order."""
        rows = rows.to(self.states.device)
        means = None if self.means is None else self.means[rows]
        implied = None if self.implied is None else self.implied[rows]
        return replace(self, states=self.states[rows], log_probs=self.log_probs[rows], means=means, implied=implied)

    def around(self, place: int) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """States before and after the trained step at `place`, in storage precision."""
        first = stored(self.trained).index(self.trained[place])
        return self.states[:, first], self.states[:, first + 1]

    @classmethod
    def cat(cls, parts: Sequence[Trajectory]) -> Trajectory:
        """The rows of all parts, one part after the other."""
        means = [part.means for part in parts if part.means is not None]
        implied = [part.implied for part in parts if part.implied is not None]
        return replace(
            parts[0],
            states=torch.cat([part.states for part in parts]),
            log_probs=torch.cat([part.log_probs for part in parts]),
            means=torch.cat(means) if means else None,
            implied=torch.cat(implied) if implied else None,
        )


def stored(trained: Sequence[int]) -> list[int]:
    """Times whose state is kept: both ends of every trained step, each once, ascending."""
    return sorted({j + end for j in trained for end in (0, 1)})


def implying(trained: Sequence[int]) -> list[int]:
    """Times whose state's implied clean latent has a reward: before the first trained step and after each."""
    return [trained[0], *(j + 1 for j in trained)]


@dataclass
class Recorder:
    """Takes down a rollout as it goes.

    Attributes:
        trained: steps to keep, ascending.
        dtype: precision of the kept states.
        reduce: "mean" or "sum" of a step's log-density over latent elements.
        keep_means: whether the means of the transitions are kept.
        keep_implied: whether the clean latents that the states imply are kept.
    """

    trained: Sequence[int]
    dtype: torch.dtype = torch.float32
    reduce: str = "mean"
    keep_means: bool = False
    keep_implied: bool = False
    _states: list[Tensor] = field(default_factory=list)
    _log_probs: list[Tensor] = field(default_factory=list)
    _means: list[Tensor] = field(default_factory=list)
    _implied: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stored = set(stored(self.trained))
        self._implying = set(implying(self.trained)) if self.keep_implied else set()

    def state(self, j: int, x: Float[Tensor, "m ..."], nodes: Nodes) -> Float[Tensor, "m ..."]:
        """Keep the state at time j if a trained step touches it; returns it as it was kept, and as it must go on."""
        if j not in self._stored:
            return x
        kept = x.to(self.dtype)
        self._states.append(nodes.spread(kept))
        return kept.to(x.dtype)

    def step(self, step: Step, nodes: Nodes) -> None:
        """Keep what the loss reads of a trained step."""
        self._log_probs.append(nodes.spread(step.log_prob))
        if self.keep_means:
            self._means.append(nodes.spread(step.mean))

    def reads_implied(self, j: int) -> bool:
        """Whether the clean latent that the state at time j implies is to be kept."""
        return j in self._implying

    def implied(self, clean: Float[Tensor, "m ..."], nodes: Nodes) -> None:
        """Keep an implied clean latent."""
        self._implied.append(nodes.spread(clean))

    def trajectory(self, times: Sequence[float]) -> Trajectory:
        """What was kept."""
        return Trajectory(
            times=tuple(times),
            trained=tuple(self.trained),
            states=torch.stack(self._states, dim=1),
            log_probs=torch.stack(self._log_probs, dim=1),
            means=torch.stack(self._means, dim=1) if self._means else None,
            implied=torch.stack(self._implied, dim=1) if self._implied else None,
        )
