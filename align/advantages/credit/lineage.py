"""Rewards that travel up a family: a parent without a reward of its own inherits its children's.

    r(parent) = mean (or maximum, or sum) of the rewards of its children, where r(parent) is not known

A language model rewrites a prompt, the picture model draws several pictures of each rewrite: only pictures are
scored, the rewrite inherits, and each level is then compared inside its own parent (rewrites by prompt, pictures by
rewrite; the estimator `grpo` with `unbiased=False` and other ids does that). A reward of one's own wins over an
inherited one.

References:
    UniRL's prompt-enhancer trainer (released code) propagates rewards so; it needs equal numbers of children, this does
    not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_max, group_mean, group_size

REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": group_mean,
    "max": group_max,
    "sum": lambda values, ids: group_mean(values, ids) * group_size(ids, ~values.isnan()),
}


def inherited_rewards(
    parent_rewards: Float[Tensor, "p"],
    child_rewards: Float[Tensor, "c"],
    parent_of: Int[Tensor, "c"],
    reduce: str = "mean",
) -> Float[Tensor, "p"]:
    """Rewards of parents, inherited where their own is NaN; NaN where no child has one either.

    Args:
        parent_rewards: NaN = none of its own.
        child_rewards: NaN = could not be scored; left out.
        parent_of: row of each child's parent.
        reduce: `mean`, `max` or `sum`.

    Raises:
        ValueError: unknown reduction, or a child without a parent.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"`reduce` must be one of {', '.join(REDUCTIONS)}, found {reduce!r}.")
    n = len(parent_rewards)
    if len(parent_of) and not 0 <= int(parent_of.min()) <= int(parent_of.max()) < n:
        raise ValueError(
            f"`parent_of` must be rows of the {n} parents, found {int(parent_of.min())} to {int(parent_of.max())}."
        )
    scored = ~child_rewards.isnan()
    inherited = torch.full((n,), torch.nan, dtype=torch.float64, device=parent_rewards.device)
    inherited[parent_of[scored]] = REDUCTIONS[reduce](child_rewards[scored].double(), parent_of[scored])
    return torch.where(parent_rewards.isnan(), inherited, parent_rewards.double())
