"""Losses of reward models: pure functions of scores and labels.

Bradley-Terry   P(y_w over y_l) = sigma(r_w - r_l)
regression      p_k near the label y_k, for the attributes that a row has a label of
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from preference.losses.pair import smoothed

Averaging = Literal["micro", "macro"]
"""Mean over all labels, or first within each attribute."""


def bradley_terry(
    chosen: Float[Tensor, "n"],
    rejected: Float[Tensor, "n"],
    *,
    margin: Float[Tensor, "n"] | float = 0.0,
    label_smoothing: float = 0.0,
    centre_weight: float = 0.0,
) -> Float[Tensor, "n"]:
    """Loss of each pair, natural logarithms.

        -(1 - eps) log sigma(x) - eps log sigma(-x) + lambda (r_w + r_l)^2,      x = r_w - r_l - m

    Args:
        chosen: r_w.
        rejected: r_l.
        margin: m, how far apart the two are to be at least; 0 is Bradley-Terry.
        label_smoothing: eps, share of the pairs whose order is taken to be wrong.
        centre_weight: lambda. The first term knows differences only; this one holds the mean reward near 0.

    References:
        Bradley and Terry, "Rank analysis of incomplete block designs", 1952.
        Ouyang et al., "Training language models to follow instructions with human feedback", arXiv:2203.02155.
        Touvron et al., "Llama 2", arXiv:2307.09288, the section on reward modelling (margin).
        Eisenstein et al., "Helping or Herding?", arXiv:2312.09244 (centred rewards).
    """
    losses = smoothed(chosen - rejected - margin, label_smoothing)
    return losses + centre_weight * (chosen + rejected).square() if centre_weight else losses


def label_counts(labels: Float[Tensor, "n k"]) -> Int[Tensor, "k"]:
    """How many labels there are of each attribute."""
    return (~labels.isnan()).sum(dim=0)


def label_weights(counts: Int[Tensor, "k"], averaging: Averaging = "micro") -> Float[Tensor, "k"]:
    """What one squared error of each attribute weighs in the loss.

        micro   1 / max(1, sum_k n_k)
        macro   1 / (|K+| n_k),   K+ = attributes with n_k > 0; 0 elsewhere

    Args:
        counts: n_k, labels of each attribute in the *whole* update, over all micro-batches and processes. With the
            counts of a micro-batch instead, the loss would depend on where missing labels fall.
        averaging: over all labels, or first within each attribute.
    """
    if averaging == "micro":
        return torch.full(counts.shape, 1.0 / max(1, int(counts.sum())), dtype=torch.float64)
    known = counts > 0
    return torch.where(known, 1.0 / (max(1, int(known.sum())) * counts.clamp(min=1).double()), 0.0)


def squared_errors(predictions: Float[Tensor, "n k"], labels: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """(p - y)^2 where there is a label, exactly 0 with gradient exactly 0 where it is NaN.

    The label is replaced before it is used: 0 * NaN is NaN, also in a gradient.
    """
    known = ~labels.isnan()
    errors = predictions - torch.where(known, labels, torch.zeros_like(labels)).to(predictions.dtype)
    return torch.where(known, errors, torch.zeros_like(errors)).square()


def masked_mse(
    predictions: Float[Tensor, "n k"],
    labels: Float[Tensor, "n k"],
    *,
    counts: Int[Tensor, "k"] | None = None,
    averaging: Averaging = "micro",
) -> Float[Tensor, ""]:
    """Mean squared error over the labels that are there.

        micro   sum_ik m_ik (p_ik - y_ik)^2 / max(1, sum_ik m_ik)
        macro   mean over attributes k with labels of  sum_i m_ik (p_ik - y_ik)^2 / sum_i m_ik

    With `counts` of a larger set of rows, this is these rows' share of that set's mean: shares of all parts sum to it.

    Args:
        predictions: p.
        labels: y, NaN where there is none (m = 0).
        counts: see `label_weights`; None = of these rows.
        averaging: micro is what NeMo-Aligner does within a micro-batch; macro suits attributes of unequal size.

    References:
        Wang et al., "HelpSteer: Multi-attribute Helpfulness Dataset for SteerLM", arXiv:2311.09528 (regression).
        Wang et al., "Arithmetic Control of LLMs for Diverse User Preferences", arXiv:2402.18571 (missing attributes).
    """
    weights = label_weights(label_counts(labels) if counts is None else counts, averaging)
    return (squared_errors(predictions, labels) * weights.to(predictions)).sum()
