"""Ridge regression of ratings on the features of a frozen network: reward heads without training the network.

    w_k = argmin_w  sum_{i in V_k} (w . h_i + b - y_ik)^2 + alpha |w|^2,      V_k = rows with a label of attribute k

The penalty is chosen on rows laid aside, per attribute, and the head is then fitted to all rows. Features may be the
last hidden state of a language model or the embedding of a picture.

References:
    Wang et al., "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts",
    arXiv:2406.12845 (ArmoRM, first stage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ALPHAS = tuple(10.0**power for power in range(-4, 5))
"""Penalties that are tried: nine decades."""


@dataclass(frozen=True, kw_only=True)
class RidgeHead:
    """A linear map from features to attributes.

    Attributes:
        weight: one row an attribute.
        bias: one number an attribute, zeros where none was fitted.
        alphas: chosen penalty of each attribute.
        heldout_errors: mean squared error of each attribute on the rows laid aside, at that penalty.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, "k"]
    alphas: tuple[float, ...]
    heldout_errors: tuple[float, ...]

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Predictions, float64."""
        return features.double() @ self.weight.T + self.bias


def ridge(
    features: Float[Tensor, "n d"], targets: Float[Tensor, "n"], alphas: Sequence[float], *, intercept: bool = False
) -> tuple[Float[Tensor, "a d"], Float[Tensor, "a"]]:
    """Solutions for several penalties from one decomposition, in float64.

        H^T H = V diag(lambda) V^T,   w_alpha = V diag(1 / (lambda + alpha)) V^T H^T y

    Args:
        features: h.
        targets: y, finite.
        alphas: penalties above 0.
        intercept: fit b, too, which is not penalised: features and targets are then centred first.

    Returns:
        w and b of each penalty.
    """
    h, y = features.double(), targets.double()
    centre, level = (h.mean(dim=0), y.mean()) if intercept else (h.new_zeros(h.shape[1]), y.new_zeros(()))
    h, y = h - centre, y - level
    eigenvalues, vectors = torch.linalg.eigh(h.T @ h)
    projected = vectors.T @ (h.T @ y)
    shrunk = projected / (eigenvalues.clamp(min=0) + torch.tensor(list(alphas), dtype=h.dtype)[:, None])
    weights = shrunk @ vectors.T
    return weights, level - weights @ centre


def fit_ridge(
    features: Float[Tensor, "n d"],
    labels: Float[Tensor, "n k"],
    *,
    heldout: Bool[Tensor, "n"],
    alphas: Sequence[float] = ALPHAS,
    intercept: bool = False,
) -> RidgeHead:
    """A head for each attribute, on the rows that have a label of it.

    Args:
        features: one row a sample, finite.
        labels: NaN where there is none; their content there is never read.
        heldout: rows laid aside to choose the penalty; see `laid_aside`.
        alphas: penalties to choose from; of two that are equally good the larger is taken.
        intercept: see `ridge`.

    Raises:
        ValueError: an attribute has no label on one of the two sides.
    """
    weights, biases, chosen, errors = [], [], [], []
    for column in range(labels.shape[1]):
        known = ~labels[:, column].isnan()
        fitted, aside = known & ~heldout, known & heldout
        if not fitted.any() or not aside.any():
            raise ValueError(
                f"attribute {column} needs labels among the rows that are fitted and those laid aside; found "
                f"{int(fitted.sum())} and {int(aside.sum())}"
            )
        tried, levels = ridge(features[fitted], labels[fitted, column], alphas, intercept=intercept)
        predicted = features[aside].double() @ tried.T + levels
        error = (predicted - labels[aside, column].double()[:, None]).square().mean(dim=0).tolist()
        best = min(range(len(alphas)), key=lambda place: (error[place], -alphas[place]))
        weight, bias = ridge(features[known], labels[known, column], [alphas[best]], intercept=intercept)
        weights.append(weight[0])
        biases.append(bias[0])
        chosen.append(float(alphas[best]))
        errors.append(error[best])
    return RidgeHead(
        weight=torch.stack(weights), bias=torch.stack(biases), alphas=tuple(chosen), heldout_errors=tuple(errors)
    )


def laid_aside(group_ids: Int[Tensor, "n"], share: float, generator: torch.Generator) -> Bool[Tensor, "n"]:
    """Rows of a random share of the groups: answers to one prompt stay on one side. At least one group on either.

    Args:
        group_ids: equal for rows that belong together.
        share: of the groups, in (0, 1).
        generator: of the draw.

    Raises:
        ValueError: fewer than two groups.
    """
    groups = group_ids.unique()
    if len(groups) < 2:
        raise ValueError(f"rows can be laid aside only where there are two groups or more, found {len(groups)}")
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    return torch.isin(group_ids, groups[torch.randperm(len(groups), generator=generator)[:count]])
