"""Does everybody get something? Means of user groups, and the numbers that one looks at together. Pure.

A policy that is better on average can be worse for a few. So the average stands beside the worst group, the groups at
the lower end, and how unequal they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_first, group_mean

LOW = 0.2
"""Which quantile of the groups stands for the lower end."""


class Parity(NamedTuple):
    """Parity of a reward across groups.

    Attributes:
        mean: of the groups' means, every group counting alike.
        worst: the smallest mean.
        low: the 20th percentile of the means, with linear interpolation.
        gini: 0 = all alike, (g - 1) / g = one of g groups has everything; NaN where a mean is negative.
    """

    mean: float
    worst: float
    low: float
    gini: float


def group_means(values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "g"]:
    """Mean of each group in order of first appearance, float64; groups without a score are left out.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: equal ids share a user group.
    """
    scored = ~values.isnan()
    ids = group_ids[scored]
    if len(ids) == 0:
        return torch.zeros(0, dtype=torch.float64)
    return group_mean(values[scored], ids)[group_first(ids)]


def parity(means: Float[Tensor, "g"]) -> Parity:
    """All four numbers; they are read together.

    Args:
        means: one per group, all of one unit.

    Raises:
        ValueError: no group.

    References:
        Worst group: Chakraborty et al., "MaxMin-RLHF", arXiv:2402.08925 (the egalitarian objective). Reporting total,
        worst group, 20th percentile and Gini coefficient together: "Negotiative alignment", arXiv:2503.12613.
    """
    if len(means) == 0:
        raise ValueError("no group has a score, so there is nothing to compare.")
    means = means.double()
    low = float(torch.quantile(means, LOW))
    return Parity(mean=float(means.mean()), worst=float(means.min()), low=low, gini=gini(means))


def gini(amounts: Float[Tensor, "g"]) -> float:
    """Gini coefficient: half the relative mean difference of two groups drawn at random.

        G = sum_i sum_j |x_i - x_j| / (2 g^2 mean(x))

    It depends on where 0 is: it says something about amounts (a success share, a score from 0), nothing about scores
    with an arbitrary offset.

    Args:
        amounts: >= 0, any unit.

    Returns:
        In [0, (g - 1) / g]; 0 where all are 0, NaN where one is negative or there is none.
    """
    amounts = amounts.double()
    if len(amounts) == 0 or bool((amounts < 0).any()):
        return math.nan
    if bool((amounts == amounts[0]).all()):
        return 0.0
    differences = (amounts.unsqueeze(0) - amounts.unsqueeze(1)).abs().mean()
    return float(differences / (2 * amounts.mean()))
