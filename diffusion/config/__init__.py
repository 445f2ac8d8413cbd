"""Settings of a text-to-image run. Torch-free. The string under each field is its help text.

One file per topic: `models`, `sampling`, `times`, `algorithms`; the root dataclass is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import with_config

from align.config.checks import reward_name
from align.config.directions import middle_of
from align.config.numbers import Count
from align.config.pipeline import PipelineConfig
from align.config.shaping import FixedWeights
from align.config.shared import (
    STRICT,
    CheckpointConfig,
    OptimizerConfig,
    OutputConfig,
    RewardConfig,
    TrainingConfig,
)
from diffusion.config.algorithms import Algorithm
from diffusion.config.chain import (
    AllSteps,
    BranchingConfig,
    ChainConfig,
    DanceGrpoConfig,
    DdpoConfig,
    FlowGrpoConfig,
    GuardConfig,
    LoopConfig,
    RandomSteps,
    RandomWindow,
    ReinforceConfig,
    SlidingWindow,
    Steps,
)
from diffusion.config.directions import (
    Condition,
    DirectionsConfig,
    EmbeddingCondition,
    PromptCondition,
    ShownConfig,
)
from diffusion.config.forward import (
    OFFLINE,
    AwmConfig,
    DiffusionDpoConfig,
    LaggedPolicyConfig,
    NftConfig,
    OnlineDpoConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)
from diffusion.config.image_data import ImagesConfig, PairsConfig
from diffusion.config.lagged import ConstantLag, LagSchedule, LinearLag
from diffusion.config.models import (
    GUIDANCE_AS_INPUT,
    FluxModel,
    Model,
    QwenImageModel,
    SanaModel,
    Sd3Model,
    SdxlModel,
    StableDiffusionModel,
)
from diffusion.config.sampling import (
    CpsSampler,
    DanceSdeSampler,
    DdimSampler,
    DpmSolverSampler,
    EvaluationConfig,
    FlowSdeSampler,
    OdeSampler,
    PromptsConfig,
    RolloutConfig,
    Sampler,
    SaSolverSampler,
)
from diffusion.config.times import (
    DiscreteTimes,
    LogitNormalTimes,
    NoiseScheduleTimes,
    RolloutTimes,
    Times,
    UniformTimes,
)

__all__ = [
    "GUIDANCE_AS_INPUT",
    "OFFLINE",
    "Algorithm",
    "AllSteps",
    "AwmConfig",
    "BranchingConfig",
    "ChainConfig",
    "Condition",
    "ConstantLag",
    "CpsSampler",
    "DanceGrpoConfig",
    "DanceSdeSampler",
    "DdimSampler",
    "DdpoConfig",
    "DiffusionDpoConfig",
    "DiffusionRun",
    "DirectionsConfig",
    "DiscreteTimes",
    "DpmSolverSampler",
    "EmbeddingCondition",
    "EvaluationConfig",
    "FlowGrpoConfig",
    "FlowSdeSampler",
    "FluxModel",
    "GuardConfig",
    "ImagesConfig",
    "LagSchedule",
    "LaggedPolicyConfig",
    "LinearLag",
    "LogitNormalTimes",
    "LoopConfig",
    "Model",
    "NftConfig",
    "NoiseScheduleTimes",
    "OdeSampler",
    "OnlineDpoConfig",
    "PairsConfig",
    "PromptCondition",
    "PromptsConfig",
    "QwenImageModel",
    "RandomSteps",
    "RandomWindow",
    "ReinforceConfig",
    "RolloutConfig",
    "RolloutTimes",
    "RwrConfig",
    "SaSolverSampler",
    "Sampler",
    "SanaModel",
    "Sd3Model",
    "SdxlModel",
    "SftBestConfig",
    "SftConfig",
    "ShownConfig",
    "SlidingWindow",
    "StableDiffusionModel",
    "Steps",
    "Times",
    "UniformTimes",
]


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
    directions: DirectionsConfig | None = None
    """One policy for all trade-offs between the rewards (DPA); `null`: one for the weights of `pipeline`."""
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

    def objectives(self) -> tuple[str, ...]:
        """The rewards that are trained on, in the order of a direction's components; the others are metrics."""
        return tuple(reward_name(reward) for reward in self.rewards if reward.weight != 0)

    def scoring(self) -> tuple[tuple[RewardConfig, ...], PipelineConfig]:
        """What `align audit` takes for the score: the run's own, along the middle of the shown directions where it has
        directions."""
        if self.directions is None:
            return self.rewards, self.pipeline
        middle = middle_of(self.directions.shown_for(self.objectives()), self.objectives())
        rewards = tuple(replace(reward, weight=middle.get(reward_name(reward), 0.0)) for reward in self.rewards)
        return rewards, replace(self.pipeline, weights=FixedWeights())
