"""DPO under other divergences than the reverse KL: f(log-ratio) takes the place of the log-ratio.

With u = pi / pi_ref, a = log u and the divergence's generator f, the implied reward is beta f'(u) plus a constant that
cancels in a pair:

    reverse_kl   a
    forward_kl   1 - exp(-a)
    js           log 2 + log sigma(a)
    alpha        (exp((alpha - 1) a) - 1) / (alpha - 1)      alpha -> 1: reverse_kl;  alpha = 0: forward_kl

All are 0 with slope 1, or 1/2 for js, at a = 0.

References:
    Wang et al., "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
    arXiv:2309.16240.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from align.objectives.units import choose, precise


def divergence_score(log_ratio: Float[Tensor, "*n"], kind: str, alpha: float = 0.5) -> Float[Tensor, "*n"]:
    """Score of a log-ratio a under a divergence; the formulas are above.

    Args:
        log_ratio: a, nats.
        kind: `reverse_kl`, `forward_kl`, `js` or `alpha`.
        alpha: of `alpha`. TRL's older coefficient is 1 - alpha.

    Returns:
        Scores, at least float32. Exponents are capped at 80 (float64: 700), so they are finite; there the slope is 0.

    Raises:
        ValueError: unknown divergence.
    """
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "reverse_kl": lambda a: a,
        "forward_kl": lambda a: -_expm1(-a),
        "js": lambda a: math.log(2) + logsigmoid(a),
        "alpha": lambda a: a if abs(alpha - 1) < 1e-6 else _expm1((alpha - 1) * a) / (alpha - 1),
    }
    return choose("divergence", kind, kinds)(precise(log_ratio))


def _expm1(values: Tensor) -> Tensor:
    """exp(v) - 1, exact near 0 and finite everywhere."""
    return torch.expm1(values.clamp(max=700.0 if values.dtype == torch.float64 else 80.0))
