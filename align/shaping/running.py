"""Statistics that outlive a step. Two passes within a batch, merged between batches; state is three numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.normalise import EPS_MODES


class RunningMoments:
    """Count, mean and spread of all values seen so far.

        merge:  d = m_B - m_A,  mean = m_A + d n_B / n,  M2 = M2_A + M2_B + d^2 n_A n_B / n,   n = n_A + n_B

    Give it the values of all processes at once: then every process holds the same numbers, whatever their count.

    References:
        Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        """M2, the sum of squared deviations from the mean."""

    def update(self, values: Float[Tensor, "n"]) -> None:
        """Take in a batch; NaN is left out, an empty batch changes nothing."""
        scored = values.detach()[~values.isnan()].double()
        if len(scored) == 0:
            return
        count, mean = len(scored), float(scored.mean())
        squares = float((scored - scored.mean()).square().sum())
        total, distance = self.count + count, mean - self.mean
        self.squares += squares + distance**2 * self.count * count / total
        self.mean += distance * count / total
        self.count = total

    def std(self, *, unbiased: bool = True) -> float:
        """Standard deviation, 0 before there are two values."""
        return math.sqrt(self.squares / max(self.count - int(unbiased), 1))

    def zscore(
        self, values: Float[Tensor, "n"], *, unbiased: bool = True, eps: float = 1e-4, eps_mode: str = "add"
    ) -> Float[Tensor, "n"]:
        """(r - mean) / (std + eps) with the statistics as they are; 0 where they have no spread."""
        std = self.std(unbiased=unbiased)
        if std == 0:
            return torch.where(values.isnan(), values, 0.0)
        scale = EPS_MODES[eps_mode](torch.tensor(std, dtype=torch.float64), eps)
        return ((values.double() - self.mean) / scale).to(values.dtype)

    def state_dict(self) -> dict[str, float]:
        """Three numbers, for a checkpoint."""
        return {"count": float(self.count), "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self.count, self.mean, self.squares = int(state["count"]), float(state["mean"]), float(state["squares"])
