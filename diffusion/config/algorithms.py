"""Methods: one dataclass each, with the settings that it uses and no others. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from align.config.numbers import Decay, NonNegativeFloat, PositiveFloat
from diffusion.config.times import DiscreteTimes, Times


@dataclass(frozen=True, kw_only=True)
class LaggedPolicyConfig:
    """A slow copy of the policy that the trained one is pulled towards: a trust region."""

    kl_beta: NonNegativeFloat = 1.0
    """Weight of the squared velocity difference to the lagged policy."""
    decay_per_step: NonNegativeFloat = 0.001
    """After step s the copy keeps the share min(max_decay, decay_per_step * s) of itself."""
    max_decay: Decay = 0.3
    """Largest share that the copy keeps."""


@dataclass(frozen=True, kw_only=True)
class AwmConfig:
    """Advantage Weighted Matching. arXiv:2509.25050; numbers of the released SD3.5-M GenEval configuration."""

    kind: Literal["awm"] = "awm"
    """Selects this method."""
    weighting: Literal["uniform", "t", "t_squared", "huber", "ghuber"] = "ghuber"
    """How the matching error becomes a log-probability. Paper: uniform; released: ghuber."""
    ghuber_power: PositiveFloat = 0.25
    """Power p of `ghuber`."""
    times: Times = field(default_factory=DiscreteTimes)
    """At which times the final picture is noised again."""
    ratio: Literal["exp_first", "sum_first"] = "exp_first"
    """One likelihood ratio per time, or one of the mean over times."""
    clip_range: PositiveFloat = 1.0
    """Clip of the ratio; never acts with one update per rollout."""
    kl_beta: NonNegativeFloat = 0.001
    """Weight of the squared velocity difference to the base model; 0 saves that pass."""
    kl_weighting: Literal["uniform", "elbo"] = "uniform"
    """Weight of velocity differences over time; `elbo`: 1 / (2 std^2) with std = 0.7 sqrt(t / (1 - min(t, 0.99)))."""
    lagged: LaggedPolicyConfig | None = field(default_factory=LaggedPolicyConfig)
    """The lagged policy and its pull; `null` switches it off."""
    off_policy: bool = False
    """Roll out with the lagged policy and take its likelihood as the old one."""
    advantage_max: PositiveFloat = 1.0
    """Advantages, clipped to +-pipeline.clip, are rescaled to +-advantage_max."""


Algorithm = AwmConfig
