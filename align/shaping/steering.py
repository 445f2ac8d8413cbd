"""Does a policy follow its direction? A common scale of the rewards, and the numbers that say so.

control of objective c     Spearman's rank correlation, over directions, of the asked component and the mean obtained
violated pairs             share of pairs of directions with (v - v') . (r(v) - r(v')) < 0; 0 for exact maximisers
hypervolume                of the mean objective vectors, from a reference that is fixed in advance

References:
    Wang et al., "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with
    Multi-Objective Rewards", arXiv:2402.18571. The three numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.order import spearman
from align.shaping.directions import violated_pairs
from align.shaping.pareto import MOST_OBJECTIVES, hypervolume


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Mean and standard deviation of each reward over the base model's samples.

    Attributes:
        mean: of each reward.
        deviation: of each reward, 1 where it is constant.
    """

    mean: Float[Tensor, "k"]
    deviation: Float[Tensor, "k"]

    @classmethod
    def of(cls, rewards: Float[Tensor, "n k"]) -> Scale:
        """From scored samples; NaN = unscored."""
        centred = rewards.double() - rewards.double().nanmean(dim=0)
        deviation = centred.square().nanmean(dim=0).sqrt()
        usable = deviation.isfinite() & (deviation > 0)
        return cls(mean=rewards.double().nanmean(dim=0).nan_to_num(0.0), deviation=torch.where(usable, deviation, 1.0))

    @classmethod
    def none(cls, rewards: int) -> Scale:
        """Leaves everything as it is."""
        return cls(mean=torch.zeros(rewards).double(), deviation=torch.ones(rewards).double())

    def to_json(self) -> dict[str, list[float]]:
        """For a file."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Scale:
        """Inverse of `to_json` (Any: a file may hold more)."""
        return cls(mean=torch.tensor(stored["mean"]).double(), deviation=torch.tensor(stored["deviation"]).double())

    def __call__(self, rewards: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        return (rewards.double() - self.mean) / self.deviation


def control(asked: Float[Tensor, "d"], obtained: Float[Tensor, "d"]) -> float | None:
    """Rank correlation of what is asked of an objective and what is obtained, over directions.

    Returns:
        In [-1, 1]; 0 where the same is obtained whatever is asked; None where all directions ask alike.
    """
    if len(asked.unique()) < 2:
        return None
    found = float(spearman(asked, obtained))
    return 0.0 if math.isnan(found) else found


def steering_figures(
    directions: Float[Tensor, "d c"], obtained: Float[Tensor, "d c"], names: Sequence[str], *, reference: float
) -> dict[str, float]:
    """The numbers at the head of this file.

    Args:
        directions: asked for, unit vectors.
        obtained: mean of each objective under each direction, on the common scale.
        names: of the objectives.
        reference: of the hypervolume, in each objective.
    """
    pairs = zip(names, directions.unbind(dim=1), obtained.unbind(dim=1), strict=True)
    followed = {f"control/{name}": control(asked, reached) for name, asked, reached in pairs}
    found = {name: value for name, value in followed.items() if value is not None}
    found["control/violated_pairs"] = violated_pairs(directions, obtained)
    if len(names) <= MOST_OBJECTIVES:
        found["control/hypervolume"] = hypervolume(obtained, torch.full((len(names),), reference).double())
    return found
