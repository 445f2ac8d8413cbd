"""One step of a stochastic sampler: what it returns, and the log-density of the Gaussian that it drew from.

    prev_sample = mean + std * noise,    log_prob = log N(prev_sample; mean, std^2 I)

The step rules themselves are in `diffusion.samplers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.paths import per_row


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a sampler, "previous" in the sense of less noisy.

    Attributes:
        prev_sample: the latents after the step (detached from the mean's graph only where they were handed in).
        mean: mean of the transition, with gradient to the network's output.
        std: standard deviation of the transition for each row, including sqrt(-dt).
        log_prob: log-density of `prev_sample` for each row, in nats per element (or nats with reduce="sum");
            `prev_sample` counts as a constant, gradient flows through `mean` and `std`.
    """

    prev_sample: Float[Tensor, "n ..."]
    mean: Float[Tensor, "n ..."]
    std: Float[Tensor, "n"]
    log_prob: Float[Tensor, "n"]


_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.flatten(1).mean(1),
    "sum": lambda values: values.flatten(1).sum(1),
}


def reduction(reduce: str) -> Callable[[Tensor], Tensor]:
    """Mean or sum over the elements of each row's latent.

    Raises:
        ValueError: neither "mean" nor "sum".
    """
    if reduce not in _REDUCTIONS:
        raise ValueError(f"expected reduce to be 'mean' or 'sum' over the elements of a latent, found {reduce!r}")
    return _REDUCTIONS[reduce]


def gaussian_log_prob(
    value: Float[Tensor, "n ..."], mean: Float[Tensor, "n ..."], std: Float[Tensor, "n"], reduce: str = "mean"
) -> Float[Tensor, "n"]:
    """Log-density of N(mean, std^2 I) at `value`, a constant; 0 for rows whose std is 0.

        mean or sum over elements of  -(value - mean)^2 / (2 std^2) - ln std - ln(2 pi) / 2

    Args:
        value: latents.
        mean: of the Gaussian, with gradient.
        std: of the Gaussian, one for each row.
        reduce: "mean" or "sum" over the latent's elements.
    """
    noisy = std > 0
    safe = per_row(torch.where(noisy, std, 1), mean)  # dividing by 0 in the unused branch makes NaN gradients
    density = -((value.detach() - mean) ** 2) / (2 * safe**2) - safe.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(noisy, reduction(reduce)(density), 0)


def wide(values: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return values if values.dtype == torch.float64 else values.float()


def rows(value: float | int | Tensor, like: Tensor) -> Float[Tensor, "n"]:
    """One float64 number for each row: coefficients are computed in float64 and rounded once.

    They live on the CPU, where checking them does not wait for the accelerator.

    Raises:
        ValueError: neither one number nor one for each row.
    """
    values = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, len(like))):
        raise ValueError(f"expected one number, or one for each of {len(like)} rows; found shape {tuple(values.shape)}")
    return values.expand(len(like))


def taken_step(
    mean: Tensor, std: Float[Tensor, "n"], noise: Tensor | None, prev_sample: Tensor | None
) -> Float[Tensor, "n ..."]:
    """The latents after the step: stored ones, or the mean with noise.

    Raises:
        ValueError: both noise and stored latents, or neither for a random step.
    """
    if prev_sample is not None and noise is not None:
        raise ValueError("expected `noise` (sample a step) or `prev_sample` (evaluate a stored one), found both")
    if prev_sample is not None:
        return prev_sample.to(mean)
    if noise is not None:
        return mean + per_row(std, mean) * noise.to(mean)
    if bool((std > 0).any()):
        raise ValueError(
            "this step is random: hand in `noise` (standard normal, shaped like the latents) to sample it, or "
            "`prev_sample` to evaluate a stored one"
        )
    return mean


def gaussian_step(mean: Tensor, std: Tensor, noise: Tensor | None, prev_sample: Tensor | None, reduce: str) -> Step:
    """Takes a step of the transition N(mean, std^2 I) and evaluates its log-density; arguments as in the step rules."""
    taken = taken_step(mean, std, noise, prev_sample)
    std = std.to(mean)
    return Step(prev_sample=taken, mean=mean, std=std, log_prob=gaussian_log_prob(taken, mean, std, reduce))
