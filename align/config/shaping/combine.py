"""Settings of how several rewards become one score. Torch-free. The mathematics is in `align/shaping/combine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from align.config.numbers import NonNegativeFloat, PositiveFloat

Missing: TypeAlias = Literal["unscored", "renormalise", "skip"]


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Sum of the reward columns, each times its weight."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    """Selects this combination."""
    missing: Missing = "unscored"
    """A sample without one of its rewards: unscored; the others, scaled up to the whole weight; or the others alone
    (right after a z-score of the group, where 0 is the mean)."""
    allow_negative: bool = False
    """Accept negative weights: costs that are not turned round by a transform."""


@dataclass(frozen=True, kw_only=True)
class Directional:
    """Projection on the weights as a direction of length 1; components may be negative. DPA, arXiv:2402.18571."""

    kind: Literal["directional"] = "directional"
    """Selects this combination."""
    missing: Literal["unscored", "skip"] = "unscored"
    """A sample without one of its rewards: unscored, or the others alone (after imputing or a z-score)."""


@dataclass(frozen=True, kw_only=True)
class SoftMin:
    """-tau log sum_k w_k exp(-u_k / tau): between the worst reward and the weighted mean."""

    kind: Literal["soft_min"] = "soft_min"
    """Selects this combination."""
    tau: NonNegativeFloat = 0.1
    """0 is the worst reward, infinity the weighted mean; in the unit of the transformed rewards."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Chebyshev:
    """-max_k w_k (z_k - u_k) - rho sum_k w_k (z_k - u_k): reaches every point of a front, concave parts too."""

    kind: Literal["chebyshev"] = "chebyshev"
    """Selects this combination."""
    rho: NonNegativeFloat = 0.05
    """Weight of the sum; above 0 it avoids points that are only weakly optimal."""
    mu: NonNegativeFloat = 0.0
    """Above 0 the maximum is smooth: mu log sum_k exp(. / mu)."""
    margin: NonNegativeFloat = 0.1
    """The ideal point z is the group's best of each reward plus this."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Nash:
    """sum_k w_k log(u_k - d): the Nash product. Equal relative gains over the base count equally."""

    kind: Literal["nash"] = "nash"
    """Selects this combination."""
    disagreement: float = 0.0
    """d, what each transformed reward is worth without an agreement (the base model's)."""
    delta: PositiveFloat = 1e-3
    """Below this gain the logarithm goes on as its tangent."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class PowerMean:
    """(sum_k w_k u_k^p)^(1/p) of positive rewards: 1 mean, 0 geometric, -1 harmonic, very negative the worst."""

    kind: Literal["power_mean"] = "power_mean"
    """Selects this combination."""
    p: float = 0.0
    """The exponent."""
    delta: PositiveFloat = 1e-6
    """Smaller rewards count as this one."""
    missing: Literal["unscored", "renormalise"] = "unscored"
    """A sample without one of its rewards: unscored, or judged by the others."""


@dataclass(frozen=True, kw_only=True)
class Gated:
    """Weighted sum in which the other rewards count only where one reward is good enough."""

    kind: Literal["gated"] = "gated"
    """Selects this combination."""
    gate: str
    """Name of the reward that decides, by its raw value."""
    at_least: float
    """Raw value that opens the gate."""
    floor: float | None = None
    """Value of the others behind a closed gate; `null` as in the transform `gate`."""
    missing: Missing = "unscored"
    """As in `weighted_sum`."""


@dataclass(frozen=True, kw_only=True)
class Lexicographic:
    """First things first: rank in the group by the first reward, then among equals by the next."""

    kind: Literal["lexicographic"] = "lexicographic"
    """Selects this combination."""
    order: tuple[str, ...]
    """Names of the rewards, the most important first."""
    tolerances: tuple[NonNegativeFloat, ...] = ()
    """One per reward: this much below the best still counts as equal. Empty = 0 for all."""


Combine = Annotated[
    WeightedSum | Directional | SoftMin | Chebyshev | Nash | PowerMean | Gated | Lexicographic,
    Field(discriminator="kind"),
]


def takes_negative(combine: Combine) -> bool:
    """Whether a weight may be negative: a component of a direction, and a cost in a sum that says so."""
    return isinstance(combine, Directional) or (isinstance(combine, WeightedSum) and combine.allow_negative)
