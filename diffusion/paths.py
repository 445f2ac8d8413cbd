"""The paths between a clean latent and noise, and every conversion along them. All of them are here and nowhere else.

Flow path (SD3, FLUX): time t is in [0, 1]; **t = 1 is pure noise, t = 0 is the clean latent**.

    x_t = (1 - t) x_0 + t eps,    velocity v = dx_t / dt = eps - x_0

so sampling runs from t = 1 down to t = 0 and its time differences are negative.

Diffusion path (SD1, SD2, SDXL): x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, with abar the cumulative product of 1 -
beta.

Times (and abar) are plain numbers, 0-d tensors, or one per row; they broadcast over any latent shape. Results keep the
dtype of the latents: hand in float32 or float64, never a network's half-precision output.

`FlowPath` and `DdpmPath` offer the same conversions under one protocol, `Path`, so that a method works on both kinds of
model. On the diffusion path time is discrete time / number of training times, so it is 0 at the least noisy time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

# `int` too: the tests check annotations at run time, where an int is no float, and 0 and 1 are natural times.
Time: TypeAlias = float | int | Float[Tensor, ""] | Float[Tensor, "n"]


def per_row(value: float | int | Tensor, like: Float[Tensor, "n ..."]) -> Float[Tensor, "..."]:
    """`value` in the dtype and on the device of `like`, shaped to broadcast over its rows.

    Raises:
        ValueError: `value` has neither one entry nor one for each row.
    """
    values = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, len(like))):
        raise ValueError(
            f"expected one time, or one for each of the {len(like)} rows; found shape {tuple(values.shape)}. "
            "Times of several draws and rows are flattened together with the latents, time-major."
        )
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim else values


def noised(clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """x_t = (1 - t) x_0 + t eps: the clean latent on its way to the noise."""
    t = per_row(t, clean)
    return (1 - t) * clean + t * noise


def target_velocity(clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Velocity v = eps - x_0, the regression target of a flow-matching network; the same at every time."""
    return noise - clean


def clean_from_velocity(x: Float[Tensor, "n ..."], v: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """Predicted clean latent x_0 = x_t - t v (the data prediction)."""
    return x - per_row(t, x) * v


def noise_from_velocity(x: Float[Tensor, "n ..."], v: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """Predicted noise eps = x_t + (1 - t) v."""
    return x + (1 - per_row(t, x)) * v


def velocity_from_clean(x: Float[Tensor, "n ..."], clean: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """Velocity v = (x_t - x_0) / t; undefined at t = 0, where x_t is x_0 whatever the noise was."""
    return (x - clean) / per_row(t, x)


def velocity_from_noise(x: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """Velocity v = (eps - x_t) / (1 - t); undefined at t = 1, where x_t is the noise whatever the latent was."""
    return (noise - x) / (1 - per_row(t, x))


def score_from_velocity(x: Float[Tensor, "n ..."], v: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
    """Score of the noised distribution, grad log p_t(x) = -eps / t; undefined at t = 0."""
    return -noise_from_velocity(x, v, t) / per_row(t, x)


def ddpm_noised(clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], abar: Time) -> Float[Tensor, "n ..."]:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps on the diffusion path."""
    abar = per_row(abar, clean)
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


@dataclass(frozen=True)
class CleanAndNoise:
    """What a prediction on the diffusion path says about both ends."""

    clean: Float[Tensor, "n ..."]
    noise: Float[Tensor, "n ..."]


def _from_epsilon(x: Tensor, output: Tensor, signal: Tensor, spread: Tensor) -> CleanAndNoise:
    return CleanAndNoise((x - spread * output) / signal, output)


def _from_v_prediction(x: Tensor, output: Tensor, signal: Tensor, spread: Tensor) -> CleanAndNoise:
    return CleanAndNoise(signal * x - spread * output, signal * output + spread * x)


def _from_sample(x: Tensor, output: Tensor, signal: Tensor, spread: Tensor) -> CleanAndNoise:
    return CleanAndNoise(output, (x - signal * output) / spread)


DDPM_PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], CleanAndNoise]] = {
    "epsilon": _from_epsilon,
    "v_prediction": _from_v_prediction,
    "sample": _from_sample,
}


def ddpm_clean_and_noise(
    x: Float[Tensor, "n ..."], output: Float[Tensor, "n ..."], abar: Time, prediction_type: str
) -> CleanAndNoise:
    """Clean latent and noise that a network's output on the diffusion path implies.

        epsilon:       eps = m,                                x_0 = (x - sqrt(1-abar) m) / sqrt(abar)
        v_prediction:  eps = sqrt(abar) m + sqrt(1-abar) x,    x_0 = sqrt(abar) x - sqrt(1-abar) m
        sample:        eps = (x - sqrt(abar) m)/sqrt(1-abar),  x_0 = m

    Args:
        x: noised latent.
        output: the network's output m.
        abar: cumulative product at x's time, in (0, 1).
        prediction_type: what m means; read it from the scheduler's config, it differs between checkpoints of one
            family.

    Raises:
        ValueError: unknown `prediction_type`.
    """
    if prediction_type not in DDPM_PREDICTIONS:
        raise ValueError(f"expected prediction_type to be one of {sorted(DDPM_PREDICTIONS)}, found {prediction_type!r}")
    abar = per_row(abar, x)
    return DDPM_PREDICTIONS[prediction_type](x, output, abar.sqrt(), (1 - abar).sqrt())


# --- one protocol for both paths --------------------------------------------------------------------------------------


class Path(Protocol):
    """How clean latents become noise, and what a network's output m says about both ends."""

    def noised(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """x_t of this clean latent and noise."""
        ...

    def target(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """What the network should say at x_t: the regression target of its pre-training."""
        ...

    def ends(self, x: Float[Tensor, "n ..."], output: Float[Tensor, "n ..."], t: Time) -> CleanAndNoise:
        """Clean latent and noise that the network's output at x implies."""
        ...


@dataclass(frozen=True)
class FlowPath:
    """x_t = (1 - t) x_0 + t eps; the network predicts the velocity eps - x_0."""

    def noised(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """x_t."""
        return noised(clean, noise, t)

    def target(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """The velocity, the same at every time."""
        return target_velocity(clean, noise)

    def ends(self, x: Float[Tensor, "n ..."], output: Float[Tensor, "n ..."], t: Time) -> CleanAndNoise:
        """x_t - t v and x_t + (1 - t) v."""
        return CleanAndNoise(clean_from_velocity(x, output, t), noise_from_velocity(x, output, t))


@dataclass(frozen=True, eq=False)
class DdpmPath:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps over the discrete times 0 ... T - 1 of a noise schedule.

    Attributes:
        abars: cumulative products of 1 - beta, decreasing.
        prediction_type: what the network's output means, `epsilon`, `v_prediction` or `sample`; a property of the
            checkpoint, not of the family.
    """

    abars: Float[Tensor, "T"]
    prediction_type: str

    def index(self, t: float | int | Float[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Discrete time of t = index / T; t is rounded to the nearest, so float32 times are safe."""
        return (torch.as_tensor(t).double() * len(self.abars)).round().long()

    def abar(self, t: Time) -> Float[Tensor, "..."]:
        """abar at these times, float64."""
        index = self.index(t)
        return self.abars.double().to(index.device)[index]

    def noised(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """x_t."""
        return ddpm_noised(clean, noise, self.abar(t))

    def target(self, clean: Float[Tensor, "n ..."], noise: Float[Tensor, "n ..."], t: Time) -> Float[Tensor, "n ..."]:
        """eps, sqrt(abar) eps - sqrt(1 - abar) x_0, or x_0."""
        if self.prediction_type not in DDPM_TARGETS:
            raise ValueError(f"expected prediction_type in {sorted(DDPM_TARGETS)}, found {self.prediction_type!r}")
        abar = per_row(self.abar(t), clean)
        return DDPM_TARGETS[self.prediction_type](clean, noise, abar.sqrt(), (1 - abar).sqrt())

    def ends(self, x: Float[Tensor, "n ..."], output: Float[Tensor, "n ..."], t: Time) -> CleanAndNoise:
        """See `ddpm_clean_and_noise`."""
        return ddpm_clean_and_noise(x, output, self.abar(t), self.prediction_type)


DDPM_TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda clean, noise, signal, spread: noise,
    "v_prediction": lambda clean, noise, signal, spread: signal * noise - spread * clean,
    "sample": lambda clean, noise, signal, spread: clean,
}
