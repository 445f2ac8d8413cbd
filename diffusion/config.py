"""Settings of a text-to-image run. Torch-free. The string under each field is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, with_config

from align.config.numbers import Count, Decay, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.paths import FilePath, ModelPath
from align.config.pipeline import PipelineConfig
from align.config.shared import (
    STRICT,
    CheckpointConfig,
    LoraConfig,
    OptimizerConfig,
    OutputConfig,
    RewardConfig,
    TrainingConfig,
)


@dataclass(frozen=True, kw_only=True)
class Sd3Model:
    """Stable Diffusion 3 and 3.5, and every pipeline folder of that class, the embedded one included."""

    kind: Literal["sd3"] = "sd3"
    """Selects this model family."""
    path: ModelPath = "builtin:tiny"
    """A diffusers folder, a hub id, or `builtin:tiny` for the embedded model."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen parts: text encoders, and the transformer under LoRA; the VAE decodes in float32."""
    max_sequence_length: Count | None = None
    """Tokens of the T5 part of the context. 0 leaves T5 out; `null` takes the pipeline's 256 (embedded model: 0)."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


Model = Sd3Model


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """Which prompts are trained on and which are only evaluated."""

    train: FilePath = "builtin:tiny/train"
    """Text file (a prompt a line), JSONL file (`prompt` and columns that rewards see), or `builtin:tiny/train`."""
    heldout: FilePath | None = "builtin:tiny/heldout"
    """Prompts for evaluation, never trained on; `null` switches evaluation off."""


@dataclass(frozen=True, kw_only=True)
class OdeSampler:
    """Euler steps of the probability-flow ODE: deterministic."""

    kind: Literal["ode"] = "ode"
    """Selects this sampler."""


@dataclass(frozen=True, kw_only=True)
class FlowSdeSampler:
    """Flow-SDE steps: the ODE's marginals with noise. Liu et al., Flow-GRPO, arXiv:2505.05470."""

    kind: Literal["flow_sde"] = "flow_sde"
    """Selects this sampler."""
    noise_level: NonNegativeFloat = 0.7
    """Noise scale a; 0 is the ODE."""


@dataclass(frozen=True, kw_only=True)
class SaSolverSampler:
    """SA-Solver, second-order predictor and corrector in data prediction. Xue et al., arXiv:2309.05019."""

    kind: Literal["sa_solver"] = "sa_solver"
    """Selects this sampler."""
    noise_level: NonNegativeFloat = 0.4
    """tau for times between `noise_from` and `noise_until`, 0 elsewhere; 0 is deterministic."""
    noise_from: Share = 0.3
    """Smallest time with noise."""
    noise_until: Share = 0.9
    """Largest time with noise."""


Sampler = Annotated[OdeSampler | FlowSdeSampler | SaSolverSampler, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How pictures are sampled for training."""

    prompts_per_step: PositiveInt = 8
    """Distinct prompts of a step, over all processes."""
    group_size: PositiveInt = 8
    """Pictures per prompt."""
    batch_size: PositiveInt = 32
    """Pictures that one process samples at once; changes speed and memory, not the result."""
    num_inference_steps: PositiveInt = 14
    """Network steps of a rollout."""
    guidance_scale: PositiveFloat = 1.0
    """Classifier-free guidance; 1 = none (half the network calls)."""
    resolution: PositiveInt | None = None
    """Height and width in pixels; `null` takes the model's own."""
    sampler: Sampler = field(default_factory=SaSolverSampler)
    """The step rule."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out evaluation with fixed prompts and seeds."""

    every: Count = 0
    """Evaluate after every so many steps (and before the first and after the last); 0 = only before and after."""
    seeds: PositiveInt = 4
    """Pictures per held-out prompt, each from its own fixed noise."""
    num_inference_steps: PositiveInt = 40
    """Euler steps of the ODE sampler."""
    guidance_scale: PositiveFloat = 1.0
    """Classifier-free guidance; 1 = none."""
    rewards: tuple[RewardConfig, ...] = ()
    """Rewards that are only evaluated, beside the trained ones."""
    strip_prompts: Count = 6
    """How many held-out prompts the progress strip follows, one fixed seed each."""
    strip_every: Count = 10
    """Draw the strip's pictures after every so many steps; 0 = never."""


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


Times = Annotated[DiscreteTimes | UniformTimes | LogitNormalTimes, Field(discriminator="kind")]


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


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class DiffusionRun:
    """A text-to-image run."""

    branch: Literal["diffusion"] = "diffusion"
    """Text-to-image models."""
    recipe: str | None = None
    """Name of the shipped config that this one is a variant of; `align plan` lists where they differ."""
    seed: Count = 0
    """All randomness of the run follows from it."""
    model: Model = field(default_factory=Sd3Model)
    """The model that is trained."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    """Prompts."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How pictures are sampled for training."""
    rewards: tuple[RewardConfig, ...] = ()
    """What is rewarded."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    """From rewards to advantages."""
    algorithm: Algorithm = field(default_factory=AwmConfig)
    """The method."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and learning rate."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How long, how large, how precise."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Held-out evaluation."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """Run folder and trackers."""
