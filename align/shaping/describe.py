"""Scalars for the log about rewards, weights and scores. A mean over nothing is left out rather than logged as NaN."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.config.shaping import Directional, WeightedSum
from align.groups import group_is_constant, group_mean, group_size, group_std
from align.shaping.score import Shaped
from align.shaping.table import Columns
from align.shaping.weights import weight_entropy

LINEAR = (WeightedSum, Directional)


def describe_rewards(columns: Columns, shaped: Shaped, combination: object, *, changing: bool) -> dict[str, float]:
    """Mean and spread of each reward; where several are trained on, also what each of them does to the score.

    Args:
        columns: raw rewards.
        shaped: what became of them.
        combination: its settings; a share of the variance exists for sums only.
        changing: whether the weights are worth a line.
    """
    stats: dict[str, float] = {}
    for name, column in zip(columns.names, columns.raw.unbind(dim=1), strict=True):
        scored = column[~column.isnan()]
        if len(scored):
            stats[f"rewards/{name}/mean"] = float(scored.mean())
            stats[f"rewards/{name}/std"] = float(scored.std()) if len(scored) > 1 else 0.0
    if int(shaped.trained.sum()) > 1:
        stats |= _describe_several(columns, shaped, isinstance(combination, LINEAR))
    if changing:
        means = shaped.weights.double().reshape(-1, len(columns.names)).mean(dim=0)
        for k in shaped.trained.nonzero().flatten().tolist():
            stats[f"weights/{columns.names[k]}"] = float(means[k])
        stats["weights/entropy"] = weight_entropy(shaped.weights)
    return stats


def describe_scores(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> dict[str, float]:
    """Mean score, and its standard deviation within a group (unbiased), averaged over samples."""
    scored = ~scores.isnan()
    if not scored.any():
        return {}
    kept = scores[scored].double()
    return {
        "reward": float(kept.mean()),
        "reward_std": float(group_std(kept, group_ids[scored]).mean()),
    }


def variance_shares(
    parts: Float[Tensor, "n k"], scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]
) -> Float[Tensor, "k"]:
    """Which reward is really trained on: its share of the score's variance within groups.

        share_k = mean over groups of  Cov_g(w_k u_k, S) / Var_g(S);     sum_k share_k = 1 for S = sum_k w_k u_k

    A negative share is a reward that is being sacrificed.

    Args:
        parts: w_k u_k; 0 for rewards that do not count. Rows with a NaN are left out.
        scores: their sum; groups in which it does not vary are left out.
        group_ids: equal ids share a prompt.

    Returns:
        float64; zeros if no group varies.
    """
    rows = ~(parts.isnan().any(dim=1) | scores.isnan())
    parts, scores, ids = parts[rows].double(), scores[rows].double(), group_ids[rows]
    rows = ~group_is_constant(scores, ids)
    parts, scores, ids = parts[rows], scores[rows], ids[rows]
    if len(scores) == 0:
        return torch.zeros(parts.shape[1], dtype=torch.float64)
    deviation = scores - group_mean(scores, ids)
    variance = group_mean(deviation.square(), ids)
    per_row = torch.stack([column * deviation / variance for column in parts.unbind(dim=1)], dim=1)
    weight = 1.0 / group_size(ids).double()  # mean over groups, not over samples
    return (per_row * weight.unsqueeze(1)).sum(dim=0) / weight.sum()


def _describe_several(columns: Columns, shaped: Shaped, linear: bool) -> dict[str, float]:
    stats: dict[str, float] = {}
    weights = shaped.weights.double().expand(columns.raw.shape)
    parts = torch.where(weights == 0, 0.0, shaped.utilities * weights)
    totals = parts.sum(dim=1)
    shares = variance_shares(parts, totals, columns.ids) if linear else None
    for k in shaped.trained.nonzero().flatten().tolist():
        name, column = columns.names[k], columns.raw[:, k]
        stats[f"rewards/{name}/frac_unscored"] = float(column.isnan().double().mean())
        stats[f"rewards/{name}/frac_zero_std"] = _frac_zero_std(column, columns.ids)
        if shares is not None:
            stats[f"rewards/{name}/share"] = float(shares[k])
    return stats


def _frac_zero_std(column: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """Of the groups with two scored samples or more, the share in which this reward is the same for all."""
    scored = ~column.isnan()
    several = scored & (group_size(group_ids, where=scored) > 1)
    constant = several & group_is_constant(column, group_ids)
    return len(group_ids[constant].unique()) / max(len(group_ids[several].unique()), 1)
