"""Settings of the reference that LSC compares with: what the initial policy gets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from align.config.numbers import PositiveInt

Quantile: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class ReferenceConstant:
    """One number for every prompt: the last resort, it loses the comparison within the prompt."""

    kind: Literal["constant"] = "constant"
    """Selects this reference."""
    value: float
    """The reference, in the unit of the reward."""


@dataclass(frozen=True, kw_only=True)
class ReferenceColumn:
    """Another reward (weight 0) that returns the reference of each sample: a stored score of the base model's
    pictures, of the chosen answer, of a data-set label."""

    kind: Literal["column"] = "column"
    """Selects this reference."""
    column: str
    """Name of the reward that holds the reference."""
    fallback: float | None = None
    """For samples without a reference; `null` leaves them unscored."""


@dataclass(frozen=True, kw_only=True)
class ReferenceCanonical:
    """Score of the group's canonical sample (a refusal, a blank picture, the greedy answer)."""

    kind: Literal["canonical"] = "canonical"
    """Selects this reference."""
    column: str
    """Name of the reward (weight 0) that is not 0 for the canonical sample of each group."""
    fallback: float | None = None
    """For groups without a canonical sample; `null` leaves them unscored."""


@dataclass(frozen=True, kw_only=True)
class ReferenceStart:
    """Quantile over the samples of the run's first steps, then frozen: they are those of the initial policy."""

    kind: Literal["start"] = "start"
    """Selects this reference."""
    q: Quantile = 0.85
    """Which quantile is good enough."""
    steps: PositiveInt = 1
    """How many steps are looked at."""


@dataclass(frozen=True, kw_only=True)
class ReferencePrompt:
    """Quantile over stored samples of the same prompt: one number per prompt, kept over the steps and in checkpoints.

    Estimated as in `group`, from the scored samples of the steps in which the prompt is met first, the present one
    included; once there are enough the number stands still. It is the initial policy's where a prompt is met early.
    Use it where prompts come back.
    """

    kind: Literal["prompt"] = "prompt"
    """Selects this reference."""
    q: Quantile = 0.85
    """Which quantile is good enough."""
    method: Literal["gaussian", "empirical"] = "gaussian"
    """mean + PhiInv(q) * std (from about 8 samples), or the quantile of the samples with linear interpolation (32)."""
    samples: PositiveInt = 16
    """A prompt with at least this many stored samples takes no more."""


@dataclass(frozen=True, kw_only=True)
class ReferenceGroup:
    """Quantile of the group's own samples. It moves with the policy, which makes the transform a relative advantage
    without a ceiling; for experiments."""

    kind: Literal["group"] = "group"
    """Selects this reference."""
    q: Quantile = 0.85
    """Which quantile is good enough."""
    method: Literal["gaussian", "empirical"] = "gaussian"
    """mean + PhiInv(q) * std, or the quantile of the samples with linear interpolation."""


Reference = Annotated[
    ReferenceStart | ReferencePrompt | ReferenceConstant | ReferenceColumn | ReferenceCanonical | ReferenceGroup,
    Field(discriminator="kind"),
]
