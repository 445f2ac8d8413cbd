"""Settings of a language-model run. Torch-free. The string under each field is its help text.

One file per topic: `models`, `data`, `algorithms`, `running`; the root dataclass is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import with_config

from align.config.checks import reward_name
from align.config.numbers import Count
from align.config.pipeline import PipelineConfig
from align.config.shared import STRICT, OutputConfig, RewardConfig
from preference.config.algorithms import Algorithm, DpoConfig, SftConfig, SimpoConfig
from preference.config.candidates import CandidatesConfig, ServerConfig
from preference.config.data import PairsConfig, TokensConfig
from preference.config.models import CausalLm, Model
from preference.config.running import (
    EvaluationConfig,
    GenerationConfig,
    ReferenceConfig,
    TextCheckpointConfig,
    TextOptimizerConfig,
    TextTrainingConfig,
)
from preference.config.teacher import AdpaConfig, DckdConfig, TeacherConfig, TwoTeachersConfig

__all__ = [
    "AdpaConfig",
    "Algorithm",
    "CandidatesConfig",
    "CausalLm",
    "DckdConfig",
    "DpoConfig",
    "EvaluationConfig",
    "GenerationConfig",
    "Model",
    "PairsConfig",
    "PreferenceRun",
    "ReferenceConfig",
    "ServerConfig",
    "SftConfig",
    "SimpoConfig",
    "TeacherConfig",
    "TextCheckpointConfig",
    "TextOptimizerConfig",
    "TextTrainingConfig",
    "TokensConfig",
    "TwoTeachersConfig",
]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PreferenceRun:
    """A run that trains a language model on preferences."""

    branch: Literal["preference"] = "preference"
    """Language models."""
    recipe: str | None = None
    """Name of the shipped config that this one is a variant of; `align plan` lists where they differ."""
    seed: Count = 0
    """All randomness of the run follows from it."""
    model: Model = field(default_factory=CausalLm)
    """The model that is trained."""
    data: PairsConfig = field(default_factory=PairsConfig)
    """The pairs."""
    algorithm: Algorithm = field(default_factory=DpoConfig)
    """The method."""
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    """The model that the policy is compared with."""
    optimizer: TextOptimizerConfig = field(default_factory=TextOptimizerConfig)
    """Optimiser and learning rate."""
    training: TextTrainingConfig = field(default_factory=TextTrainingConfig)
    """How long, how large, how precise."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Held-out evaluation."""
    candidates: CandidatesConfig | None = None
    """Answers for new pairs, for `align generate`, `score` and `pairs`; `align train` does not read it."""
    checkpoint: TextCheckpointConfig = field(default_factory=TextCheckpointConfig)
    """Checkpoints."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """Run folder and trackers."""

    def scoring(self) -> tuple[tuple[RewardConfig, ...], PipelineConfig]:
        """Rewards and what makes one score of them: those of `candidates`, beside which those of the evaluation are
        metrics; without any there, the latter in a weighted sum."""
        candidates, evaluated = self.candidates or CandidatesConfig(), self.evaluation.rewards
        if not candidates.rewards:
            return evaluated, PipelineConfig()
        known = {reward_name(reward) for reward in candidates.rewards}
        metrics = tuple(replace(reward, weight=0.0) for reward in evaluated if reward_name(reward) not in known)
        return (*candidates.rewards, *metrics), candidates.shaping()
