"""Other numbers of a distribution, from sums over its vocabulary that can be made slice by slice.

With the exponentials E_v = exp(z_v - highest) and their total T = sum_v E_v, so that pi_v = E_v / T:

    entropy            -sum_v pi_v log pi_v = log T + highest - (sum_v E_v z_v) / T
    log_sum_squares    log sum_v pi_v^2     = log(sum_v E_v^2) - 2 log T            the weight of WPO
    largest            max_v log pi_v       = -log T
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Extra:
    """One number for each token, without gradient.

    Attributes:
        part: what each entry adds, from logits and exponentials, of one shape; None = nothing is added up.
        power: of the exponentials in it: when their shift moves by s, the sum so far is multiplied by exp(power * s).
        finish: from that sum, the total of the exponentials and the highest logit.
    """

    part: Callable[[Tensor, Tensor], Tensor] | None
    power: int
    finish: Callable[[Tensor, Tensor, Tensor], Tensor]


def _times_logit(logits: Tensor, exponentials: Tensor) -> Tensor:
    # An entry that is ruled out has a logit of -inf and weight 0: together 0, not NaN.
    return exponentials * logits.clamp(min=torch.finfo(logits.dtype).min)


EXTRAS: dict[str, Extra] = {
    "entropy": Extra(
        part=_times_logit, power=1, finish=lambda moment, total, highest: total.log() + highest - moment / total
    ),
    "log_sum_squares": Extra(
        part=lambda logits, exponentials: exponentials.square(),
        power=2,
        finish=lambda moment, total, highest: moment.log() - 2 * total.log(),
    ),
    "largest": Extra(part=None, power=0, finish=lambda moment, total, highest: -total.log()),
}
"""What can be asked about each token beside its log-probability, by name."""


def extra_of(extra: Extra, logits: Float[Tensor, "m v"]) -> Float[Tensor, "m"]:
    """One number for each row of whole logits."""
    highest = logits.amax(dim=1)
    exponentials = (logits - highest[:, None]).exp()
    total = exponentials.sum(dim=1)
    moment = total if extra.part is None else extra.part(logits, exponentials).sum(dim=1)
    return extra.finish(moment, total, highest)
