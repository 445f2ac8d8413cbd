"""UCAS: shape advantages by the model's own certainty, first of the response, then of each token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_standardised
from align.advantages.registry import estimator
from align.config.shapers import Ucas
from align.groups import group_is_constant
from align.objectives import per_unit

CLOSE = 1e-6  # a batch whose logits span less than this has no scale


@estimator(Ucas)
def ucas(inputs: AdvantageInputs, options: Ucas) -> AdvantageResult:
    """Damp what is confident and right, punish what is confident and wrong, and press on certain tokens.

        stage 1:  c_i = mean over tokens of (logsumexp(z) - mean(z));  chat = group z-score of c (n - 1, eps 1e-6)
                  W_i = exp(-0.25 chat_i) if A_i > 0 else exp(+0.35 chat_i);    A'_i = A_i W_i
        stage 2:  ell_t = logit of the sampled token, scaled to 0 .. 1 over all trained tokens of the batch
                  A_t = A'_i - 0.05 ell_t,  not below 0 where A'_i > 0

    A good sample never becomes a bad one. Samples of advantage 0 get -0.05 ell_t, a small push down on every
    token, by design (rule C1 does not apply); `skip_zero_groups` leaves them at 0. A group of one keeps the base's.
    All three strengths 0: GRPO on every token.

    Beside the gathered rows' `[n]` vectors, stage 2 needs two numbers of the whole batch: the smallest and the largest
    logit. Both are logged, because one outlier decides the scale.

    References:
        Xie et al., "Uncertainty-aware Advantage Shaping" (UCAS), arXiv:2510.10649. Equation number not checked.

    Note:
        The released certainty is the sum over tokens (`reduction="sum"`), so that the z-score mostly ranks by length;
        the paper speaks of overall confidence. Leave padded vocabulary columns out of mean(z). With a base that does
        not divide by a deviation the released code leaves c unscaled and exp() overflows; here c is always a z-score.
    """
    trained = trained_positions(inputs)
    base = inputs.tensor("advantages")
    weighted = base * _response_weight(inputs, trained, base, options)
    logits = _scaled(inputs.tensor("token_logits"), trained)
    weighted = per_unit(weighted, logits)
    shaped = weighted - options.token * logits
    shaped = torch.where(weighted > 0, shaped.clamp(min=0.0), shaped)
    if options.skip_zero_groups:
        shaped = torch.where(per_unit(base, logits) == 0, 0.0, shaped)
    span = inputs.tensor("token_logits")[trained]
    stats = {"ucas/logit_min": float(span.min()), "ucas/logit_max": float(span.max())} if len(span) else {}
    return AdvantageResult(advantages=shaped, stats=stats)


def _response_weight(
    inputs: AdvantageInputs, trained: Bool[Tensor, "n t"], base: Float[Tensor, "n *t"], options: Ucas
) -> Float[Tensor, "n *t"]:
    """W of stage 1, 1 where all of a group are equally certain."""
    certainty = torch.where(trained, inputs.tensor("self_certainty"), 0.0).sum(dim=1)
    if options.reduction == "mean":
        certainty = certainty / trained.sum(dim=1).clamp(min=1)
    relative = group_standardised(certainty, inputs.ids, scope="group", unbiased=True, eps=options.eps, eps_mode="add")
    relative = per_unit(torch.where(group_is_constant(certainty, inputs.ids), 0.0, relative), base)
    return torch.where(base > 0, -options.positive * relative, options.negative * relative).exp()


def _scaled(logits: Float[Tensor, "n t"], trained: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """(x - min) / (max - min + 1e-6) over the trained tokens of the batch; 0.5 where they hardly differ."""
    counted = logits[trained]
    if len(counted) == 0 or counted.max() - counted.min() < CLOSE:
        return torch.full_like(logits, 0.5)
    return (logits - counted.min()) / (counted.max() - counted.min() + 1e-6)
