"""Methods that train on final pictures, noised again: no step of the sampler is looked at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import NonNegativeFloat, PositiveFloat, PositiveInt
from diffusion.config.image_data import ImagesConfig, PairsConfig
from diffusion.config.lagged import LagSchedule, LinearLag
from diffusion.config.times import DiscreteTimes, LogitNormalTimes, RolloutTimes, Times

LabelSmoothing = Annotated[float, Field(ge=0, lt=0.5)]
"""Share of the labels that are taken to be wrong."""


@dataclass(frozen=True, kw_only=True)
class LaggedPolicyConfig:
    """A slow copy of the policy that the trained one is pulled towards: a trust region."""

    kl_beta: NonNegativeFloat = 1.0
    """Weight of the squared velocity difference to the lagged policy."""
    schedule: LagSchedule = field(default_factory=LinearLag)
    """How slowly the copy follows."""


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


@dataclass(frozen=True, kw_only=True)
class NftConfig:
    """DiffusionNFT: towards good pictures and away from bad ones. arXiv:2509.16117; released numbers."""

    kind: Literal["nft"] = "nft"
    """Selects this method."""
    beta: PositiveFloat = 1.0
    """How far the implicit positive and negative policies lie from the old one. Released: 1, for OCR 0.1."""
    advantages: Literal["all", "positive_only", "negative_only", "one_only", "binary"] = "all"
    """Which part of the advantages counts: all, one sign, 1 for every positive one, or their sign."""
    times: Times = field(default_factory=RolloutTimes)
    """At which times the final picture is noised again. Released: all of the rollout's."""
    kl_beta: NonNegativeFloat = 1e-4
    """Weight of the squared velocity difference to the base model; 0 saves that pass."""
    lagged: LagSchedule = field(default_factory=lambda: LinearLag(per_step=0.001, max_decay=0.5))
    """How slowly the old policy, which rolls out, follows the trained one."""


@dataclass(frozen=True, kw_only=True)
class OnlineDpoConfig:
    """Diffusion-DPO on the best and the worst picture of each prompt, as it is drawn. arXiv:2311.12908, 2501.13918."""

    kind: Literal["online_dpo"] = "online_dpo"
    """Selects this method."""
    beta: PositiveFloat = 100.0
    """How strongly the policy is held to the base model: a larger beta, a smaller step away from it."""
    label_smoothing: LabelSmoothing = 0.0
    """Share of the pairs whose order is taken to be wrong."""
    times: Times = field(default_factory=lambda: LogitNormalTimes(draws=1))
    """At which times both pictures of a pair are noised; they share time and noise."""


@dataclass(frozen=True, kw_only=True)
class DiffusionDpoConfig:
    """Diffusion-DPO (noise prediction) and Flow-DPO (velocities) on stored pairs. arXiv:2311.12908, 2501.13918."""

    kind: Literal["diffusion_dpo"] = "diffusion_dpo"
    """Selects this method."""
    data: PairsConfig
    """The pairs."""
    pairs_per_step: PositiveInt = 32
    """Pairs of a step, over all processes."""
    beta: PositiveFloat = 2000.0
    """How strongly the policy is held to the base model. Published: 2000 to 5000 (SD1.5, SDXL)."""
    label_smoothing: LabelSmoothing = 0.0
    """Share of the pairs whose order is taken to be wrong."""
    times: Times = field(default_factory=lambda: LogitNormalTimes(draws=1))
    """At which times both pictures of a pair are noised. Published for SD1.5 and SDXL: `noise_schedule`."""


@dataclass(frozen=True, kw_only=True)
class RwrConfig:
    """Reward-weighted regression: the matching loss, weighted by the reward. A baseline."""

    kind: Literal["rwr"] = "rwr"
    """Selects this method."""
    weights: Literal["exponential", "raw"] = "exponential"
    """exp(score / temperature), of mean 1 in each group; or the bare score, which also pushes away where it is < 0."""
    temperature: PositiveFloat = 1.0
    """Of `exponential`, in the unit of the score; smaller is greedier."""
    times: Times = field(default_factory=DiscreteTimes)
    """At which times the final picture is noised again."""
    kl_beta: NonNegativeFloat = 0.0
    """Weight of the squared output difference to the base model; 0 saves that pass."""


@dataclass(frozen=True, kw_only=True)
class SftBestConfig:
    """Supervised fine-tuning on the best picture of each prompt, as it is drawn. A baseline."""

    kind: Literal["sft_best"] = "sft_best"
    """Selects this method."""
    times: Times = field(default_factory=DiscreteTimes)
    """At which times the final picture is noised again."""
    kl_beta: NonNegativeFloat = 0.0
    """Weight of the squared output difference to the base model; 0 saves that pass."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Supervised fine-tuning on stored pictures and their captions. A baseline."""

    kind: Literal["sft"] = "sft"
    """Selects this method."""
    data: ImagesConfig
    """The pictures."""
    images_per_step: PositiveInt = 32
    """Pictures of a step, over all processes."""
    times: Times = field(default_factory=lambda: LogitNormalTimes(draws=1))
    """At which times a picture is noised."""
    kl_beta: NonNegativeFloat = 0.0
    """Weight of the squared output difference to the base model; 0 saves that pass."""


OFFLINE = (DiffusionDpoConfig, SftConfig)
"""Methods that learn from stored pictures: no rollout, no reward."""
