"""Losses of one step of a denoising chain, whose transition is N(mean, std^2 I). Pure functions, one number a row.

Log-probabilities are means over the D elements of a latent unless said otherwise, so that a ratio is the D-th root of
the likelihood ratio: clip ranges are 1e-4, not 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives import clipped_surrogate
from diffusion.losses.choose import choose
from diffusion.paths import per_row

# --- objectives: (log ratio, advantages, clip range) -> loss ----------------------------------------------------------


def _ppo_min(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    return clipped_surrogate(log_ratio, torch.zeros_like(log_ratio), advantages, clip_range, clip_range)


def _clip_only(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    # The logarithm is clipped, not the ratio: one that overflows would turn the gradient into NaN.
    inside = log_ratio.clamp(math.log1p(-clip_range) if clip_range < 1 else -math.inf, math.log1p(clip_range))
    return -advantages.to(log_ratio) * inside.exp()


OBJECTIVES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"ppo_min": _ppo_min, "clip_only": _clip_only}


def clipped_objective(
    log_ratio: Float[Tensor, "m"], advantages: Float[Tensor, "m"], clip_range: float, objective: str = "ppo_min"
) -> Float[Tensor, "m"]:
    """Loss of a step from its log-ratio, with gradient.

        ppo_min:    -min(rho A, clip(rho, 1 - c, 1 + c) A)      pessimistic: a strayed ratio is pulled back
        clip_only:  -clip(rho, 1 - c, 1 + c) A                  a ratio outside has no gradient at all

    Where rho = 1 both have the gradient -A grad log p.

    Args:
        log_ratio: log rho, nats (per element, where log-probabilities are means).
        advantages: constants.
        clip_range: c.
        objective: a key of `OBJECTIVES`.

    Raises:
        ValueError: unknown objective.

    References:
        Schulman et al., PPO, arXiv:1707.06347, equation 7, for `ppo_min`.
    """
    return choose(OBJECTIVES, objective, "objective")(log_ratio, advantages.detach(), clip_range)


def score_function(log_probs: Float[Tensor, "m"], advantages: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """-A log p: REINFORCE. Exactly 0, and without gradient, where A is 0."""
    advantages = advantages.detach().to(log_probs)
    return -advantages * torch.where(advantages == 0, 0.0, log_probs)


def guarded_log_ratio(
    log_probs: Float[Tensor, "m"],
    old_log_probs: Float[Tensor, "m"],
    mean: Float[Tensor, "m ..."],
    old_mean: Float[Tensor, "m ..."],
    std: Float[Tensor, "m"],
) -> Float[Tensor, "m"]:
    """GRPO-Guard's log-ratio: its expectation under the old policy is 0, and its scale is the same for all steps.

        log rho' = s (log p - log p_old) + mean over elements of (mean - mean_old)^2 / (2 s)

    With d = (mean - mean_old) / s, log p - log p_old is -mean(d^2) / 2 + mean(d xi) for the noise xi that was drawn:
    on average below 0, by more at steps of small s. The second term takes that off; mean(s d xi) is left.

    Args:
        log_probs: of the steps that were taken, means over elements, with gradient.
        old_log_probs: of the policy that took them.
        mean: of the transition, with gradient.
        old_mean: of the policy that took them.
        std: s, of the transition, sqrt(-dt) included; the same in both policies.

    References:
        Wang et al., GRPO-Guard, arXiv:2510.22319 (ratio normalisation), and Flow-GRPO's released code.
    """
    moved = ((mean - old_mean.detach()) ** 2).flatten(1).mean(1)
    return std * (log_probs - old_log_probs.detach()) + moved / (2 * std)


# --- distance to another policy ---------------------------------------------------------------------------------------


def transition_kl(
    mean: Float[Tensor, "m ..."], other: Float[Tensor, "m ..."], std: Float[Tensor, "m"]
) -> Float[Tensor, "m"]:
    """KL(N(mean, std^2 I) || N(other, std^2 I)) in nats, summed over the latent.

        |mean - other|^2 / (2 std^2)

    On the flow path under Flow-SDE with g = std / sqrt(|dt|) this is the paper's closed form

        |dt| / 2 (1/g + g (1 - t) / (2 t))^2 |v - v_other|^2

    Args:
        mean: of the trained policy's transition, with gradient.
        other: of the base model's; a constant.
        std: of both, sqrt(-dt) included.

    References:
        Liu et al., Flow-GRPO, arXiv:2505.05470 (the KL of two Flow-SDE policies).
    """
    squared = ((mean - other.detach()) / per_row(std, mean)) ** 2
    return squared.flatten(1).sum(1) / 2


def released_kl(
    mean: Float[Tensor, "m ..."], other: Float[Tensor, "m ..."], std: Float[Tensor, "m"], dt: Float[Tensor, "m"]
) -> Float[Tensor, "m"]:
    """What Flow-GRPO's released code adds to the loss as KL: the exact one times |dt| / D, D elements of a latent.

        mean over elements of (mean - other)^2 / (2 g^2),    g = std / sqrt(|dt|)

    Its published weights (0.04, 0.01) are for this form.

    Args:
        mean: of the trained policy's transition, with gradient.
        other: of the base model's; a constant.
        std: of both, sqrt(-dt) included.
        dt: length of the step in time; its sign does not matter.
    """
    return transition_kl(mean, other, std) * dt.abs().to(std) / mean[0].numel()


# --- for the log ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ratio_metrics(log_ratio: Float[Tensor, "m"], clip_range: float) -> dict[str, Float[Tensor, ""]]:
    """How far the policy has moved since the rollout, and how often the clip acts.

    Returns:
        ratio_deviation: mean |rho - 1|.
        clip_ratio, clip_ratio/high, clip_ratio/low: share of ratios outside the clip, above it, below it.
        approx_kl: mean of (log rho)^2 / 2.
    """
    away = torch.expm1(log_ratio)  # exp(x) - 1 would lose the digits that count: deviations are 1e-5
    high, low = (away > clip_range).to(away), (away < -clip_range).to(away)
    return {
        "ratio_deviation": away.abs().mean(),
        "clip_ratio": (high + low).mean(),
        "clip_ratio/high": high.mean(),
        "clip_ratio/low": low.mean(),
        "approx_kl": (log_ratio**2).mean() / 2,
    }
