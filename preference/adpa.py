"""ADPA: a student raises, at every state of its own answers, what an aligned teacher prefers to its unaligned self.

    A_t(v) = beta_A [ log pi_dpo(v | s_t) - log pi_ref(v | s_t) ]                       a constant
    L      = w_sft L_SFT(y_w) - gamma (1/N) sum_t sum_v pi_theta(v | s_t) A_t(v)        s_t along the student's answer

For a teacher trained by DPO, log pi_dpo / pi_ref is the optimal advantage of the reward that it implies: no critic, no
discount, no sampling noise, since the sum is over the student's whole next-token distribution.

    sum_v pi_theta A = beta_A [ KL(pi_theta || pi_ref) - KL(pi_theta || pi_dpo) ]

The term is linear in pi_theta, so alone it would end on argmax A, over a whole vocabulary usually a token that both
teachers find absurd. That is why the support is the teacher's top k, and why the supervised term is there.

Where we differ from the released code:
    * It stores log-ratios through a loader for probabilities, which clamps them to [0, 1]: what the teacher likes less
      counts 0, not less. The paper's formula is signed: our default. `clip="released"` is the code's.
    * It gives ids that are missing from the reference's own top k a floor taken from the other teacher. We score both
      teachers at the same ids.
    * beta_A is 1 there, the teacher's own beta nowhere. Ours is explicit.

References:
    Gao et al., "Advantage-Guided Distillation for Preference Alignment in Small Language Models", arXiv:2502.17927, the
    section on advantage-guided distillation. Released code: SLIT-AI/ADPA.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.objectives import aggregate
from align.objectives.units import choose, precise
from preference.losses.modifiers import negative_log_likelihood

CLIPS: dict[str, tuple[float, float] | None] = {"paper": None, "released": (0.0, 1.0)}
"""Named ranges of the advantage: signed and unbounded as in the paper, or what the released code's loader leaves."""


class AdpaLoss(NamedTuple):
    """The loss and its parts.

    Attributes:
        loss: what is minimised.
        advantage: (1/N) sum_t sum_v pi_theta A_t, in the unit of advantages, detached: what training raises.
        sft: L_SFT, nats a token, detached.
    """

    loss: Float[Tensor, ""]
    advantage: Float[Tensor, ""]
    sft: Float[Tensor, ""]


def adpa_advantages(
    teacher_log_probs: Float[Tensor, "*units k"],
    ref_log_probs: Float[Tensor, "*units k"],
    *,
    advantage_beta: float = 1.0,
    clip: str | tuple[float, float] = "paper",
) -> Float[Tensor, "*units k"]:
    """Advantage of each entry of the support: beta_A (log pi_dpo - log pi_ref), a constant.

    Entries are ids of a vocabulary, or `entries(record, "bucket")` with the rest as the last one. An entry that has no
    mass under either teacher has advantage 0.

    Args:
        teacher_log_probs: of the aligned teacher, nats.
        ref_log_probs: of the same teacher before its preference training, at the same ids.
        advantage_beta: beta_A. The paper's beta is the teacher's; its code has 1 and leaves the scale to gamma.
        clip: `paper` (none), `released` (to [0, 1]), or a range.

    Raises:
        ValueError: unknown name, or a range whose ends are in the wrong order.
    """
    bounds = choose("clip", clip, CLIPS) if isinstance(clip, str) else clip
    if bounds is not None and not bounds[0] <= bounds[1]:
        raise ValueError(f"`clip` is a range from low to high, found {bounds}.")
    teacher, reference = precise(teacher_log_probs).detach(), precise(ref_log_probs).detach()
    nowhere = torch.isneginf(teacher) & torch.isneginf(reference)
    advantages = advantage_beta * torch.where(nowhere, 0.0, teacher - reference)
    return advantages if bounds is None else advantages.clamp(*bounds)


def expected_advantage(
    student_log_probs: Float[Tensor, "*units k"], advantages: Float[Tensor, "*units k"]
) -> Float[Tensor, "*units"]:
    """sum_v pi_theta(v) A(v) over the support; what is outside has advantage 0.

    Args:
        student_log_probs: at the support, with gradient.
        advantages: constants; an entry with advantage 0 gives no gradient of its own.
    """
    return (precise(student_log_probs).exp() * precise(advantages).detach()).sum(dim=-1)


def adpa_loss(
    student_log_probs: Float[Tensor, "n t k"],
    advantages: Float[Tensor, "n t k"],
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    chosen_log_probs: Float[Tensor, "m s"],
    chosen_mask: Real[Tensor, "m s"] | Bool[Tensor, "m s"],
    *,
    gamma: float = 1.5,
    sft_weight: float = 1.0,
    token_count: int | None = None,
    chosen_token_count: int | None = None,
    world: int = 1,
) -> AdpaLoss:
    """The loss of a micro-batch; the formula stands at the head of this file.

    The data's rejected answers have no part in it, and ADPA+ is the same loss on a student that DCKD has trained.

    Args:
        student_log_probs: log pi_theta at the support, along the student's own answers, with gradient.
        advantages: of `adpa_advantages`, or any other numbers for the same entries.
        mask: not 0 at tokens of those answers, the end token among them.
        chosen_log_probs: log-probabilities of the tokens of the data's chosen answers, with gradient.
        chosen_mask: not 0 at their tokens.
        gamma: weight of the advantage term. The paper's best is 1.5; beyond 3 it over-optimises.
        sft_weight: of the supervised term.
        token_count: N, tokens of the students' answers in the whole update; None = of this tensor.
        chosen_token_count: the same of the chosen answers.
        world: processes whose gradients are averaged.
    """
    expected = expected_advantage(student_log_probs, advantages)
    advantage = aggregate(expected, mask, "token_mean", token_count=token_count, world=world)
    sft = negative_log_likelihood(chosen_log_probs, chosen_mask, token_count=chosen_token_count, world=world)
    return AdpaLoss(sft_weight * sft - gamma * advantage, advantage.detach(), sft.detach())
