"""Scalars for the log about rewards, weights and scores. A mean over nothing is left out rather than logged as NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.config.shaping import Directional, WeightedSum
from align.groups import group_is_constant, group_mean, group_size, group_std
from align.shaping.score import Shaped
from align.shaping.table import Columns
from align.shaping.weights import weight_entropy

LINEAR = (WeightedSum, Directional)
SAME = 1e-9
"""Weights of classes that differ by less are the same."""


def describe_rewards(
    columns: Columns, shaped: Shaped, combination: object, *, changing: bool, classes: Sequence[str] = ()
) -> dict[str, float]:
    """Mean and spread of each reward; where several are trained on, also what each of them does to the score.

    Args:
        columns: raw rewards.
        shaped: what became of them.
        combination: its settings; a share of the variance exists for sums only.
        changing: whether the weights are worth a line also where one reward is trained on alone.
        classes: of the rows' prompts; empty where they have none.
    """
    stats: dict[str, float] = {}
    for name, column in zip(columns.names, columns.raw.unbind(dim=1), strict=True):
        scored = column[~column.isnan()]
        if len(scored):
            stats[f"rewards/{name}/mean"] = float(scored.mean())
            stats[f"rewards/{name}/std"] = float(scored.std()) if len(scored) > 1 else 0.0
    several = int(shaped.trained.sum()) > 1
    if several:
        stats |= _describe_several(columns, shaped, isinstance(combination, LINEAR))
    if several or changing:
        stats |= describe_weights(columns.names, shaped, classes)
    return stats


def describe_weights(names: Sequence[str], shaped: Shaped, classes: Sequence[str] = ()) -> dict[str, float]:
    """The weights that a step has really used: their means, by class of prompts where classes differ, their entropy.

    Args:
        names: of the rewards.
        shaped: with the step's weights.
        classes: of the rows' prompts; empty where they have none.
    """
    trained = shaped.trained.nonzero().flatten().tolist()
    means = _mean_weights(shaped.weights)
    stats = {f"weights/{names[k]}": float(means[k]) for k in trained}
    stats["weights/entropy"] = weight_entropy(shaped.weights)
    if shaped.weights.ndim == 1:
        return stats  # one vector for all prompts
    rows = {name: [i for i, one in enumerate(classes) if one == name] for name in dict.fromkeys(classes)}
    of_class = {name: _mean_weights(shaped.weights[members]) for name, members in rows.items()}
    if any(not torch.allclose(found, means, rtol=0.0, atol=SAME) for found in of_class.values()):
        stats |= {
            f"weights/{name}/{names[k]}": float(found[k]) for name, found in of_class.items() if name for k in trained
        }
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


def shares_of_score(columns: Columns, shaped: Shaped) -> Float[Tensor, "k"]:
    """`variance_shares` of the rewards in their weighted sum; what they are under another combination has no share."""
    weights = shaped.weights.double().expand(columns.raw.shape)
    parts = torch.where(weights == 0, 0.0, shaped.utilities * weights)
    return variance_shares(parts, parts.sum(dim=1), columns.ids)


def frac_zero_std(column: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """Of the groups with two scored samples or more, the share in which this reward is the same for all."""
    scored = ~column.isnan()
    several = scored & (group_size(group_ids, where=scored) > 1)
    constant = several & group_is_constant(column, group_ids)
    return len(group_ids[constant].unique()) / max(len(group_ids[several].unique()), 1)


def _mean_weights(weights: Tensor) -> Float[Tensor, "k"]:
    """Mean over samples, where weights depend on them."""
    return weights.double().reshape(-1, weights.shape[-1]).mean(dim=0)


def _describe_several(columns: Columns, shaped: Shaped, linear: bool) -> dict[str, float]:
    stats: dict[str, float] = {}
    shares = shares_of_score(columns, shaped) if linear else None
    for k in shaped.trained.nonzero().flatten().tolist():
        name, column = columns.names[k], columns.raw[:, k]
        stats[f"rewards/{name}/frac_unscored"] = float(column.isnan().double().mean())
        stats[f"rewards/{name}/frac_zero_std"] = frac_zero_std(column, columns.ids)
        if shares is not None:
            stats[f"rewards/{name}/share"] = float(shares[k])
    return stats
