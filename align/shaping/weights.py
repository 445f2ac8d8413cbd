"""Where weights come from, beside fixed numbers: a schedule, a constraint, the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_max, group_min

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 - 0.5 * math.cos(math.pi * share),
    "jump": lambda share: float(share >= 1.0),
}


def scheduled(step: int, *, start: float, end: float, steps: int, begin: int = 0, shape: str = "linear") -> float:
    """A weight that changes from one value to another.

        w = start + (end - start) f(x),   x = (step - begin) / steps limited to [0, 1];
        f(x) = x (linear), (1 - cos(pi x)) / 2 (cosine), 1 from x = 1 on (jump)

    Args:
        step: number of the step, from 0.
        start: weight up to and including step `begin`.
        end: weight from step `begin + steps` on.
        steps: at least 1.
        begin: first step of the change.
        shape: `linear`, `cosine` or `jump`.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, found {steps}.")
    if shape not in SHAPES:
        raise ValueError(f"`shape` must be one of {', '.join(SHAPES)}, found {shape!r}.")
    return start + (end - start) * SHAPES[shape](min(max((step - begin) / steps, 0.0), 1.0))


class DualVariable:
    """The price of a constraint: "maximise the rest subject to E[u] >= threshold".

        lambda <- min(largest, max(0, lambda + rate (threshold - mean of the batch's u)))

    Its reward enters the sum with weight lambda: dL/du = lambda, the Lagrangian's. With the reward clipped from above
    at the threshold (`clip: {high: ...}`) it is the penalty -lambda relu(threshold - u), which pays nothing for more
    than enough.

    Args:
        threshold: wanted mean, in the unit of the raw reward.
        rate: change per step and unit of violation, > 0.
        start: first value, >= 0.
        largest: cap: a constraint that cannot be met must not drown everything else.

    References:
        Dai et al., "Safe RLHF", arXiv:2310.12773, the Lagrange multiplier's update. The cap is ours.
    """

    def __init__(self, threshold: float, *, rate: float = 0.1, start: float = 0.0, largest: float = 10.0) -> None:
        if not (rate > 0 and 0 <= start <= largest):
            raise ValueError(
                f"expected `rate` above 0 and 0 <= `start` <= `largest`, found {rate}, {start} and {largest}."
            )
        self.threshold, self.rate, self.largest = threshold, rate, largest
        self.value = start

    def update(self, values: Float[Tensor, "n"]) -> float:
        """Move by one batch (all processes' rows) and return the new value; a batch without a score moves nothing."""
        scored = values.detach()[~values.isnan()].double()
        if len(scored):
            violation = self.threshold - float(scored.mean())
            self.value = min(self.largest, max(0.0, self.value + self.rate * violation))
        return self.value

    def state_dict(self) -> dict[str, float]:
        """One number, for a checkpoint."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self.value = float(state["value"])


def check_prompt_weights(weights: Float[Tensor, "n k"], group_ids: Int[Tensor, "n"]) -> None:
    """Raise a ValueError unless all samples of a prompt have the same weights.

    Weights that depend on the answer would let the policy raise its reward by moving the weights.
    """
    for k, column in enumerate(weights.unbind(dim=1)):
        differs = (group_max(column, group_ids) != group_min(column, group_ids)) | column.isnan()
        if differs.any():
            group = int(group_ids[differs][0])
            raise ValueError(
                f"weight {k} differs between the samples of prompt {group}, or is missing there. Weights may depend on "
                "the prompt, never on the answer: compute them once per prompt."
            )


def weight_entropy(weights: Float[Tensor, "k"] | Float[Tensor, "n k"]) -> float:
    """Mean entropy of the weights divided by their sum, in nats: log k if all count alike, 0 if one counts alone."""
    rows = weights.double().abs().reshape(-1, weights.shape[-1])
    share = rows / rows.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return float(-torch.special.xlogy(share, share).sum(dim=1).mean()) + 0.0
