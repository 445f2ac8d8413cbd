"""DCKD: a student learns an aligned teacher's distribution on chosen and rejected answers, and the chosen text itself.

    L    = w_sft L_SFT(y_w) + alpha (KL_w + KL_l)
    KL_r = mean over tokens of D_KL( pi_dpo(. | s_t) || pi_theta(. | s_t) ),        r chosen or rejected

Rejected answers are distilled, not pushed down: the aligned teacher says what should have come instead. Forward KL,
temperature 1, on the data's own pairs. The paper writes a sum over time steps; the released code takes the mean over
the scored tokens of a micro-batch; we take the mean over those of the whole update (`token_count`), so that
accumulation changes nothing.

References:
    Gao et al., "Advantage-Guided Distillation for Preference Alignment in Small Language Models", arXiv:2502.17927, the
    section on dual-constrained knowledge distillation. Released code: SLIT-AI/ADPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.objectives import aggregate
from align.objectives.units import precise
from preference.losses.modifiers import negative_log_likelihood
from preference.teacher import TopK, entries


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """One side of the pairs, chosen or rejected: teacher and student at the same tokens and the same ids.

    Attributes:
        teacher: records of the aligned teacher; no gradient flows.
        student: the student at the teacher's ids, with gradient.
        mask: not 0 at response tokens.
        token_count: such tokens in the whole update; None = of this tensor.
    """

    teacher: TopK
    student: TopK
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"]
    token_count: int | None = None


class DckdLoss(NamedTuple):
    """The loss and its parts.

    Attributes:
        loss: what is minimised.
        kl_chosen: KL_w, nats a token, detached.
        kl_rejected: KL_l, nats a token, detached.
        sft: L_SFT, nats a token, detached.
    """

    loss: Float[Tensor, ""]
    kl_chosen: Float[Tensor, ""]
    kl_rejected: Float[Tensor, ""]
    sft: Float[Tensor, ""]


def record_kl(teacher: TopK, student: TopK, *, tail: str = "bucket") -> Float[Tensor, "*units"]:
    """D_KL(teacher || student) at each token, nats, from k entries.

        bucket        sum_{j <= k} p_j log(p_j / q_j) + p_rest log(p_rest / q_rest)
        renormalise   the first sum, of both distributions given the k entries

    Never negative; with `bucket` a lower bound of the KL over the vocabulary that grows with k and is exact at k = v.

    Args:
        teacher: p; a constant.
        student: q at the same ids.
        tail: `bucket` or `renormalise`.

    Raises:
        ValueError: other ids, or a tail that leaves no distribution.
    """
    if tail == "ignore":
        raise ValueError("a KL needs distributions: k entries alone do not sum to 1. Use `bucket` or `renormalise`.")
    if not torch.equal(teacher.ids, student.ids):
        raise ValueError("teacher and student have different ids. Score the student at the teacher's: `student_at`.")
    p, q = precise(entries(teacher, tail)).detach(), precise(entries(student, tail))
    # An entry without mass adds nothing, and log 0 - log q must not be formed; nor must q = 0 give inf * 0.
    present = torch.isfinite(p)
    gap = torch.where(present, p, 0.0) - torch.where(present, q, 0.0)
    return (torch.where(present, p, 0.0).exp() * present * gap).sum(dim=-1)


def dckd_loss(
    chosen: Distilled,
    rejected: Distilled,
    chosen_log_probs: Float[Tensor, "n t"],
    *,
    alpha: float = 0.2,
    sft_weight: float = 1.0,
    chosen_weight: float = 1.0,
    rejected_weight: float = 1.0,
    tail: str = "bucket",
    world: int = 1,
) -> DckdLoss:
    """The loss of a micro-batch; the formula stands at the head of this file.

    Args:
        chosen: teacher and student on the chosen answers.
        rejected: the same on the rejected ones.
        chosen_log_probs: log-probabilities of the tokens of the chosen answers under the student, with gradient, at the
            places of `chosen.mask`.
        alpha: weight of both divergences.
        sft_weight: of the supervised term.
        chosen_weight: of KL_w, within alpha.
        rejected_weight: of KL_l, within alpha.
        tail: what becomes of mass outside the k entries: `bucket` or `renormalise`.
        world: processes whose gradients are averaged.

    Raises:
        ValueError: see `record_kl`.
    """

    def divergence(side: Distilled) -> Tensor:
        kl = record_kl(side.teacher, side.student, tail=tail)
        return aggregate(kl, side.mask, "token_mean", token_count=side.token_count, world=world)

    kl_chosen, kl_rejected = divergence(chosen), divergence(rejected)
    sft = negative_log_likelihood(chosen_log_probs, chosen.mask, token_count=chosen.token_count, world=world)
    loss = sft_weight * sft + alpha * (chosen_weight * kl_chosen + rejected_weight * kl_rejected)
    return DckdLoss(loss, kl_chosen.detach(), kl_rejected.detach(), sft.detach())
