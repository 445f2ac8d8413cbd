"""Estimates of a KL divergence from the log-probabilities of what was sampled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.units import check_same_shape, choose, precise


def kl_estimate(
    log_probs: Float[Tensor, "*units"], ref_log_probs: Float[Tensor, "*units"], kind: str = "k3"
) -> Float[Tensor, "*units"]:
    """Estimate of KL(pi || pi_ref) from the log-probability of what pi sampled, in nats per unit.

        d = log pi - log pi_ref
        k1 = d                     unbiased, may be negative, large variance
        k2 = d^2 / 2               never negative, small variance, biased; its gradient is that of the KL
        k3 = exp(-d) - 1 + d       never negative, unbiased value, small variance

    References:
        Schulman, "Approximating KL Divergence", 2020 (joschu.net/blog/kl-approx.html).
    """
    check_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    difference = precise(log_probs) - precise(ref_log_probs).detach()
    # expm1: exp(-d) - 1 loses every digit that matters when the policies are close
    estimators: dict[str, Callable[[Tensor], Tensor]] = {
        "k1": lambda d: d,
        "k2": lambda d: d.square() / 2,
        "k3": lambda d: torch.expm1(-d) + d,
    }
    return choose("KL estimator", kind, estimators)(difference)
