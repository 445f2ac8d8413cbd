"""What the pieces of a loss share: log-probabilities of units, in enough precision.

A *unit* is what has one log-probability: a token, a denoising step, a sample.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from align.errors import did_you_mean

Choice = TypeVar("Choice")


def log_ratio(log_probs: Float[Tensor, "*units"], old_log_probs: Float[Tensor, "*units"]) -> Float[Tensor, "*units"]:
    """Log rho = log pi - log pi_old, in nats, at least float32; no gradient reaches the old policy."""
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    return precise(log_probs) - precise(old_log_probs).detach()


def check_same_shape(**tensors: Tensor) -> None:
    """Raise a ValueError with all names and shapes unless these tensors have one shape: nothing is broadcast."""
    if len({values.shape for values in tensors.values()}) > 1:
        found = ", ".join(f"`{name}` {list(values.shape)}" for name, values in tensors.items())
        raise ValueError(f"expected tensors of one shape, found {found}. Cut or pad them alike before the loss.")


def per_unit(per_sample: Tensor, like: Tensor) -> Tensor:
    """One number per sample, shaped to broadcast over the units of `like`; per-unit numbers pass unchanged."""
    if per_sample.ndim == like.ndim:
        return per_sample
    return per_sample.reshape(-1, *[1] * (like.ndim - 1))


def precise(values: Tensor) -> Tensor:
    """At least float32: a ratio of 1.01 is not a bfloat16 number."""
    return values if values.dtype == torch.float64 else values.float()


def choose(what: str, name: str, choices: dict[str, Choice]) -> Choice:
    """The entry of that name, or a ValueError with the nearest."""
    if name in choices:
        return choices[name]
    raise ValueError(f"no {what} {name!r}.{did_you_mean(name, choices)} Available: {', '.join(choices)}.")
