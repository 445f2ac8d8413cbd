"""A supervised pull on fixed data that an advantage opens and closes.

    l_t = -w log pi(y_t),        w = 1[A > 0]                        gate `positive`
                                 w = min(exp(A / temperature), cap)  gate `exponential`

Demonstrations, old rollouts or chosen answers are imitated where they are better than what the policy does now, and
left alone where they are not; a plain supervised term would pull back a policy that has outgrown its data. w is a
constant.

References:
    The exponential gate is advantage-weighted regression, Peng et al., arXiv:1910.00177, equation 7 with a weight
    cap; the binary gate is self-imitation's, Oh et al., arXiv:1806.05635, and CRR's, Wang et al., arXiv:2006.15134.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.units import choose, per_unit, precise


def gated_pull(
    log_probs: Float[Tensor, "n *units"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n *units"],
    *,
    gate: str = "positive",
    temperature: float = 1.0,
    cap: float = 20.0,
) -> Float[Tensor, "n *units"]:
    """Loss of each unit; to be minimised, and to be averaged with `aggregate`.

    Args:
        log_probs: of the data under the policy that is trained, nats, with gradient.
        advantages: how much better the data is than the policy, one per sample or per unit; constants.
        gate: `positive` or `exponential`.
        temperature: of the exponential gate, in the unit of the advantages, > 0.
        cap: largest weight of the exponential gate, > 0.

    Returns:
        One loss per unit, at least float32; exactly 0, and without gradient, where the gate is closed.

    Raises:
        ValueError: unknown gate, or a temperature or cap that is not positive.
    """
    if temperature <= 0 or cap <= 0:
        raise ValueError(f"`temperature` and `cap` must be above 0, found {temperature} and {cap}.")
    gates: dict[str, Callable[[Tensor], Tensor]] = {
        "positive": lambda advantage: (advantage > 0).to(advantage.dtype),
        "exponential": lambda advantage: (advantage / temperature).exp().clamp(max=cap),
    }
    weights = choose("gate", gate, gates)(precise(per_unit(advantages, log_probs)).detach())
    # Where the gate is closed the log-probability is not read: 0 * -inf would be NaN.
    return -weights * torch.where(weights == 0, 0.0, precise(log_probs))
