"""Does a system do what it is asked? Points that carry a direction: what was asked of each objective, what came. No IO.

control of an objective: Spearman's rank correlation, over a system's points, of the asked component and the mean
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.inspect.sweep.systems import Sweep, System
from align.shaping.steering import control as of_directions

FEWEST = 3
"""Different directions below which a rank correlation is a coin."""


def asked_table(sweep: Sweep, system: System) -> Float[Tensor, "p k"] | None:
    """What was asked of each objective at each point of a system; None where too few different things were.

    Of an objective where less is better, asking for less is asking for more.
    """
    points = [sweep.points[place] for place in system.places[0]]
    if not all(point.asked for point in points):
        return None
    table = [[one.sign * point.asked.get(one.reward, 0.0) for one in sweep.objectives] for point in points]
    asked = torch.tensor(table, dtype=torch.float64)
    return asked if len(asked.unique(dim=0)) >= FEWEST else None


def control(
    asked: Float[Tensor, "p k"], system: System, means: Float[Tensor, "r m k"], seeds: Int[Tensor, "r s"]
) -> list[np.ndarray | None]:
    """The correlation of each objective in each resample, mean over the drawn seeds; None where all points are asked
    alike. A system that answers every direction alike has 0.

    Args:
        asked: at each point.
        system: whose points.
        means: of all points in each resample.
        seeds: the drawn ones of each resample.
    """
    found: list[np.ndarray | None] = []
    for k, column in enumerate(asked.unbind(dim=1)):
        per_seed = [[of_directions(column, row) for row in means[:, list(own), k]] for own in system.places]
        if per_seed[0][0] is None:
            found.append(None)
            continue
        numbers = np.asarray(per_seed, dtype=np.float64).T
        found.append(np.take_along_axis(numbers, seeds.numpy(), axis=1).mean(axis=1))
    return found
