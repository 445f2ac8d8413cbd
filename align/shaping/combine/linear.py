"""Linear combinations: weighted sum, direction, behind a gate, and of log-sigmoids."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.shaping.combine.inputs import Missing, Weights, checked_weights, columns, finish, row_sum
from align.shaping.transforms import gate as gate_column
from align.shaping.transforms import lsc


def weighted_sum(
    values: Float[Tensor, "n k"], weights: Weights, *, missing: Missing = "unscored", allow_negative: bool = False
) -> Float[Tensor, "n"]:
    """Sum of the rewards, each times its weight.

        S_i = sum_k w_k u_ik                                                   over the columns with w_k != 0
        S_i = sum_{k in A} w_k u_ik * (sum_k w_k) / (sum_{k in A} w_k)         renormalise; A: the scored ones
        S_i = sum_{k in A} w_k u_ik                                            skip

    It reaches only the corners of a concave front. After a z-score of each group and with `skip` it is the sum of
    normalise-then-sum (GDPO): a missing reward then counts as its group's mean.

    Args:
        values: rewards, each in its own unit; NaN = not scored.
        weights: one per reward, or one per sample and reward. The weights carry the units: a weight of 1 on an
            aesthetic score (spread about 1) drowns a weight of 1 on a CLIP cosine (spread about 0.03).
        missing: what becomes of a sample without one of its rewards.
        allow_negative: accept negative weights.

    Returns:
        One score per sample, NaN where unscored.
    """
    parts = columns(values, weights, missing=missing, signed=allow_negative)
    return finish(row_sum(parts.values * parts.weights), parts.scored, values)


def directional(values: Float[Tensor, "n k"], weights: Weights, *, missing: Missing = "unscored") -> Float[Tensor, "n"]:
    """Projection on a direction of length 1.

        S_i = v . u_i,   v = w / ||w||_2        components of either sign

    Best-of-n and group-normalised advantages do not depend on the length of v; the strength of a KL term relative to
    the reward does, hence the normalisation.

    Args:
        values: rewards; NaN = not scored.
        weights: the direction, in any length; one, or one per sample.
        missing: `unscored` or `skip`.

    References:
        Wang et al., "Arithmetic Control of LLMs ... Directional Preference Alignment", arXiv:2402.18571.
    """
    direction = checked_weights(values, weights, signed=True)
    length = row_sum(direction.square()).sqrt()
    unit = direction / torch.where(length > 0, length, 1.0).unsqueeze(1)
    parts = columns(values, unit, missing=missing, signed=True)
    return finish(row_sum(parts.values * parts.weights), parts.scored, values)


def gated(
    values: Float[Tensor, "n k"],
    weights: Weights,
    *,
    gate: int,
    at_least: float,
    raw: Float[Tensor, "n"] | None = None,
    floor: float | None = None,
    group_ids: Int[Tensor, "n"] | None = None,
    missing: Missing = "unscored",
) -> Float[Tensor, "n"]:
    """Weighted sum in which every other reward counts only where the gate's reward is good enough.

    Args:
        values: rewards; NaN = not scored.
        weights: as in `weighted_sum`; the gate's own weight may be 0.
        gate: column of the deciding reward. NaN there makes the sample unscored, not failed.
        at_least: value that opens the gate, in the unit of `raw`.
        raw: the deciding reward before any transform; None = its column of `values`.
        floor: value of the other rewards behind a closed gate; None as in `transforms.gate`.
        group_ids: for that default; None = one group.
        missing: what becomes of a sample without one of its other rewards.
    """
    if not 0 <= gate < values.shape[1]:
        raise ValueError(f"`gate` must be a column of the rewards (0 to {values.shape[1] - 1}), found {gate}.")
    ids = _one_group(values) if group_ids is None else group_ids
    decides = values[:, gate] if raw is None else raw
    kept = [
        column if k == gate else gate_column(column, ids, on=decides, at_least=at_least, floor=floor)
        for k, column in enumerate(values.unbind(dim=1))
    ]
    score = weighted_sum(torch.stack(kept, dim=1), weights, missing=missing)
    return torch.where(decides.isnan(), float("nan"), score)


def lsc_and(
    values: Float[Tensor, "n k"],
    weights: Weights,
    *,
    reference: float | Float[Tensor, "k"] | Float[Tensor, "n k"] = 0.0,
    scale: float = 1.0,
    missing: Missing = "renormalise",
) -> Float[Tensor, "n"]:
    """Log-probability of being good in every respect: the sum of the log-sigmoid-centred rewards.

        S_i = sum_k w_k log sigma((r_ik - r_ref,ik) / s)        = log prod_k p_ik(good)  for weights 1

    Marginal gains go to the worst property, and none can be bought with another: (5, -2) scores -2.13, (1, 1) -0.63.

    Args:
        values: raw rewards in natural-log odds (s = 1); NaN = not scored.
        weights: 1 each for the AND.
        reference: r_ref per reward, or per sample and reward.
        scale: s > 0.
        missing: `skip` is refused: 0 would mean "surely good".

    References:
        Wang et al., arXiv:2402.00742: combining by addition as a logical AND.
    """
    if missing == "skip":
        raise ValueError("lsc_and cannot skip a missing reward: 0 means surely good. Use renormalise or unscored.")
    references = torch.as_tensor(reference, dtype=torch.float64, device=values.device).expand(values.shape)
    ids = _one_group(values)
    utilities = [
        lsc(column, ids, reference=r, scale=scale)
        for column, r in zip(values.unbind(1), references.unbind(1), strict=True)
    ]
    return weighted_sum(torch.stack(utilities, dim=1), weights, missing=missing)


def _one_group(values: Float[Tensor, "n k"]) -> Int[Tensor, "n"]:
    return torch.zeros(values.shape[0], dtype=torch.int64, device=values.device)
