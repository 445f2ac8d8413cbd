"""How a run on texts is trained, referred and evaluated. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt
from align.config.paths import FilePath
from align.config.shared import CheckpointConfig, EmaConfig, OptimizerConfig, RewardConfig, TrainingConfig
from preference.config.data import DataPath


@dataclass(frozen=True, kw_only=True)
class TextOptimizerConfig(OptimizerConfig):
    """AdamW and its learning-rate schedule."""

    learning_rate: PositiveFloat = 5e-5
    """Peak learning rate. For adapters; all weights want about a hundredth of it (published for 7 to 9 B: 5e-7)."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""


@dataclass(frozen=True, kw_only=True)
class TextTrainingConfig(TrainingConfig):
    """How long, how large, how precise."""

    micro_batch_size: PositiveInt = 4
    """Pairs in one forward and backward pass of one process; changes speed and memory, not the result."""
    ema: EmaConfig | None = None
    """Moving average of the trained weights; `null` switches it off."""
    layout: Literal["auto", "padded", "packed", "shared"] = "auto"
    """How answers lie in rows: the cheapest that the model can take, or this one. Changes speed and memory only."""


@dataclass(frozen=True, kw_only=True)
class TextCheckpointConfig(CheckpointConfig):
    """When a checkpoint is written and which ones stay."""

    best_metric: str = "rewards/accuracies"
    """The metric that ranks checkpoints; higher is better."""


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Where the reference's log-probabilities come from: the model as it was before training."""

    precompute: bool | Literal["auto"] = "auto"
    """Once for all pairs before training, or anew in each step; `auto`: once where a pair is met more than once."""
    cache: FilePath | None = None
    """Folder that keeps them for later runs on the same pairs and weights; `null` keeps them in the run folder."""
    keep_copy: bool = False
    """Full fine-tuning without `precompute`: keep a frozen copy of the weights. Adapters are switched off instead."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Answers to held-out prompts, before and after training."""

    prompts: DataPath | None = None
    """A file with a column `prompt`; `null` takes the prompts of the held-out pairs."""
    limit: PositiveInt | None = 64
    """The first so many prompts; `null` takes all."""
    seeds: PositiveInt = 1
    """Answers to each prompt, each from its own fixed seed; more than one needs a temperature."""
    max_new_tokens: PositiveInt = 128
    """Longest answer."""
    temperature: NonNegativeFloat = 0.0
    """0 takes the likeliest token each time."""
    top_p: PositiveFloat = 1.0
    """Sample from the smallest set of tokens with this much probability; 1 = from all."""
    batch_size: PositiveInt = 16
    """Prompts that are answered at once; changes speed and memory only."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out evaluation: ranking of pairs and, by option, answers with rewards."""

    every: Count = 0
    """Evaluate after every so many steps (and before the first and after the last); 0 = only before and after."""
    pairs: PositiveInt | None = None
    """The first so many held-out pairs; `null` takes all."""
    batch_size: PositiveInt = 8
    """Pairs that are scored at once; changes speed and memory only."""
    generate: GenerationConfig | None = None
    """Answers that are sampled and scored; `null` samples none."""
    rewards: tuple[RewardConfig, ...] = ()
    """What scores those answers."""
    group_column: str | None = None
    """Column of the held-out data that says whom a prompt stands for: parity of means across them is reported."""
