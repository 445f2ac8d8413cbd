"""At which times a finished picture is noised again for training. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import PositiveFloat, PositiveInt, Share


@dataclass(frozen=True, kw_only=True)
class DiscreteTimes:
    """Training times drawn from the rollout's own schedule, one from each of `draws` strata."""

    kind: Literal["discrete"] = "discrete"
    """Selects this density."""
    draws: PositiveInt = 6
    """Times T per sample and update."""
    initial: Literal["skip", "allow", "always"] = "skip"
    """The pure-noise time t = 1: never trained (released for GenEval, OCR), one of many (PickScore), or always."""
    until: Share = 0.9
    """Only the first fraction of the schedule (the noisy end) is trained."""


@dataclass(frozen=True, kw_only=True)
class RolloutTimes:
    """Times of the rollout's whole schedule, pure noise included, one from each of `draws` strata."""

    kind: Literal["rollout"] = "rollout"
    """Selects this density."""
    draws: PositiveInt = 10
    """Times T per sample and update; `rollout.num_inference_steps` of them are all, each once."""


@dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Stratified uniform times in [lowest, 1], different for each sample, then shifted."""

    kind: Literal["uniform"] = "uniform"
    """Selects this density."""
    draws: PositiveInt = 6
    """Times T per sample and update."""
    lowest: Share = 0.2
    """Smallest time before the shift."""
    shift: PositiveFloat = 3.0
    """t becomes shift * t / (1 + (shift - 1) * t)."""


@dataclass(frozen=True, kw_only=True)
class LogitNormalTimes:
    """Stratified logit-normal times, then shifted, never below `lowest`."""

    kind: Literal["logit_normal"] = "logit_normal"
    """Selects this density."""
    draws: PositiveInt = 6
    """Times T per sample and update."""
    mean: float = 0.0
    """Mean of the normal variable."""
    std: PositiveFloat = 1.0
    """Standard deviation of the normal variable."""
    shift: PositiveFloat = 3.0
    """t becomes shift * t / (1 + (shift - 1) * t)."""
    lowest: Share = 0.01
    """Smallest time after the shift."""


@dataclass(frozen=True, kw_only=True)
class NoiseScheduleTimes:
    """All discrete times of the model's pre-training alike, one from each of `draws` strata."""

    kind: Literal["noise_schedule"] = "noise_schedule"
    """Selects this density."""
    draws: PositiveInt = 1
    """Times T per sample and update."""


Times = Annotated[
    DiscreteTimes | RolloutTimes | UniformTimes | LogitNormalTimes | NoiseScheduleTimes, Field(discriminator="kind")
]
