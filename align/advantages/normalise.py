"""Centre and divide: the arithmetic that group estimators share. Pure."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from align.groups import Scope, group_mean, group_std, scoped_ids

EPS_MODES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "add": lambda std, eps: std + eps,
    "floor": lambda std, eps: std.clamp(min=eps),
}


def group_centred(rewards: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """r_i - mean of its group, float64, in the unit of the rewards."""
    return rewards - group_mean(rewards, group_ids)


def group_standardised(
    rewards: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    scope: Scope,
    unbiased: bool,
    eps: float,
    eps_mode: str,
) -> Float[Tensor, "n"]:
    """(r_i - mean of its group) / (std + eps), or / max(std, eps).

    Args:
        rewards: one per sample, none NaN.
        group_ids: equal ids share a group.
        scope: whose standard deviation divides: the sample's group's or the whole batch's. The mean is always the
            group's.
        unbiased: n - 1 (true) or n (false) under the root.
        eps: in the unit of the rewards, >= 0.
        eps_mode: `add` or `floor`.

    Returns:
        float64, no unit. 0 / 0 (equal rewards and eps 0) is NaN here; the rules around the estimators make it 0.
    """
    if eps < 0:
        raise ValueError(f"`eps` must not be negative, found {eps}.")
    if eps_mode not in EPS_MODES:
        raise ValueError(f"`eps_mode` must be one of {', '.join(EPS_MODES)}, found {eps_mode!r}.")
    std = group_std(rewards, scoped_ids(group_ids, scope), unbiased=unbiased)
    return group_centred(rewards, group_ids) / EPS_MODES[eps_mode](std, eps)
