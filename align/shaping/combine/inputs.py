"""What every combination does first: check the weights, and decide what counts where rewards are missing."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

Missing: TypeAlias = Literal["unscored", "renormalise", "skip"]
Weights: TypeAlias = Real[Tensor, "..."]
"""`[k]` or `[n k]`. Checked here and not by the annotation, so that a mistake gets the message for people."""


class Columns(NamedTuple):
    """Rewards and weights, ready to be combined; all float64.

    Attributes:
        values: rewards; 0 where they do not count.
        weights: >= 0 unless signs are allowed; 0 where the reward does not count.
        counts: which entries count: of non-zero weight, scored.
        scored: which samples get a score.
    """

    values: Float[Tensor, "n k"]
    weights: Float[Tensor, "n k"]
    counts: Bool[Tensor, "n k"]
    scored: Bool[Tensor, "n"]


def columns(values: Float[Tensor, "n k"], weights: Weights, *, missing: Missing, signed: bool = False) -> Columns:
    """Check the weights and apply the policy for missing rewards.

    With `renormalise` the weights of a sample's scored rewards are scaled up to the sum of all its weights.

    Raises:
        ValueError: weights of the wrong size, not finite, negative (unless `signed`), all zero; an unknown policy;
            `renormalise` with signs, where the sum of the weights may be 0.
    """
    weights = checked_weights(values, weights, signed=signed)
    if missing not in ("unscored", "renormalise", "skip"):
        raise ValueError(f"`missing` must be unscored, renormalise or skip, found {missing!r}.")
    used = weights != 0
    counts = used & ~values.isnan()
    complete = (counts == used).all(dim=1)
    scored = complete if missing == "unscored" else counts.any(dim=1) | complete
    kept = torch.where(counts, weights, 0.0)
    if missing == "renormalise":
        if signed and bool((weights < 0).any()):
            raise ValueError(
                "`missing=renormalise` needs weights of one sign: a sum of signed weights can be 0. "
                "Fill gaps first (transform `impute`) or take `missing=skip` after a z-score of the group."
            )
        whole, rest = row_sum(weights), row_sum(kept)
        kept = kept * torch.where(rest > 0, whole / torch.where(rest > 0, rest, 1.0), 1.0).unsqueeze(1)
    return Columns(torch.where(counts, values.double(), 0.0), kept, counts, scored)


def checked_weights(values: Float[Tensor, "n k"], weights: Weights, *, signed: bool = False) -> Float[Tensor, "n k"]:
    """The weights of each sample and reward, float64.

    Raises:
        ValueError: wrong size, not finite, negative (unless `signed`), all zero.
    """
    n, k = values.shape
    if weights.shape not in ((k,), (n, k)):
        raise ValueError(
            f"expected one weight per reward ({k}) or one per sample and reward ({n} x {k}), found weights of shape "
            f"{list(weights.shape)}."
        )
    if not weights.isfinite().all():
        raise ValueError(f"weights must be finite numbers, found {weights[~weights.isfinite()][0].item()}.")
    if not signed and (weights < 0).any():
        raise ValueError(
            f"weights must not be negative, found {weights.min().item():g}. For a cost turn the reward round "
            "(transform `affine` with scale -1) or allow it: `allow_negative`, or the combination `directional`."
        )
    if weights.numel() and not (weights != 0).any():
        raise ValueError("every weight is 0: there is nothing to learn from. Give a reward a weight other than 0.")
    return weights.double().expand(n, k)


def row_sum(values: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Sum over the columns, column by column: equal rows have bit-equal sums wherever they stand.

    Exact ties are worth zero advantage, so a difference in the last bit is not harmless.
    """
    total = torch.zeros(values.shape[0], dtype=values.dtype, device=values.device)
    for column in values.unbind(dim=1):
        total = total + column
    return total


def shares(columns: Columns) -> Float[Tensor, "n k"]:
    """Weights divided by their sum in each row; 0 where nothing counts."""
    total = row_sum(columns.weights)
    return columns.weights / torch.where(total > 0, total, 1.0).unsqueeze(1)


def finish(scores: Float[Tensor, "n"], scored: Bool[Tensor, "n"], like: Tensor) -> Float[Tensor, "n"]:
    """NaN where unscored, in the dtype of the rewards."""
    return torch.where(scored, scores, float("nan")).to(like.dtype)
