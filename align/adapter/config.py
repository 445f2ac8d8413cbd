"""Settings of a run that trains a preference adapter. Torch-free. The string under each field is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import with_config

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.paths import FilePath
from align.config.shared import (
    STRICT,
    CheckpointConfig,
    EmaConfig,
    OptimizerConfig,
    OutputConfig,
    TrainingConfig,
)
from align.encoders.config import Encoder, MiniLmEncoder


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """Prompts and the rewards of their preferred responses."""

    train: FilePath = "preferred.jsonl"
    """A JSONL or Parquet file; docs/pro_adapter.md lists the columns that are understood."""
    heldout: FilePath | None = None
    """Further rows to stop and to judge by; `null` sets aside a share of the prompts of `train`."""
    heldout_share: Share = 0.1
    """Share of the distinct prompts of `train` that is set aside where `heldout` is `null`."""
    prompts_per_step: PositiveInt = 64
    """Rows of one optimiser step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is trained: a small network behind the frozen encoder."""

    hidden_size: PositiveInt = 256
    """Numbers in its one hidden layer."""
    temperature: PositiveFloat = 1.0
    """Of its softmax; 1 = none."""


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The weights that are taught: softmax(normalised rewards of the preferred response / temperature)."""

    normaliser: Literal["none", "zscore", "minmax", "rank"] = "minmax"
    """What makes rewards of different units comparable, fitted to the training rows."""
    temperature: PositiveFloat = 0.1
    """Of the softmax; 0.1 is the paper's."""
    contrastive: bool = False
    """Take preferred minus rejected instead of the preferred alone: what was traded off (ours; needs rejected rows)."""
    entropy_floor: Share = 0.0
    """Share of equal weights that is mixed into every target."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptimizerConfig(OptimizerConfig):
    """AdamW and its learning-rate schedule."""

    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay."""
    warmup_updates: Count = 15
    """Optimiser updates over which the learning rate rises linearly from 0."""


@dataclass(frozen=True, kw_only=True)
class AdapterTrainingConfig(TrainingConfig):
    """How long, how large, how precise."""

    steps: PositiveInt = 300
    """Steps at most; `stopping.patience` may end the run earlier."""
    micro_batch_size: PositiveInt = 64
    """Prompts in one forward and backward pass of one process; changes speed and memory, not the result."""
    ema: EmaConfig | None = None
    """Moving average of the trained weights; `null` switches it off."""


@dataclass(frozen=True, kw_only=True)
class StoppingConfig:
    """When the held-out rows are asked, and when that ends the run. What is saved is always the best that was seen."""

    every: PositiveInt = 10
    """Ask them after every so many steps (and before the first and after the last)."""
    patience: PositiveInt = 5
    """End the run when so many of these in a row have brought nothing better."""


@dataclass(frozen=True, kw_only=True)
class AdapterCheckpointConfig(CheckpointConfig):
    """When a checkpoint is written and which ones stay."""

    keep_best: Count = 0
    """How many of the best checkpoints stay; the best adapter is kept by the run itself."""
    best_metric: str = "loss"
    """The metric that ranks checkpoints; higher is better."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class AdapterRun:
    """A run that trains a preference adapter: from a prompt to the weights of the objectives."""

    branch: Literal["adapter"] = "adapter"
    """Preference adapters, for prompts of pictures and of texts."""
    recipe: str | None = None
    """Name of the shipped config that this one is a variant of; `align plan` lists where they differ."""
    seed: Count = 0
    """All randomness of the run follows from it."""
    objectives: tuple[str, ...] = ()
    """Names of the rewards, two or more: columns of the file, later the rewards of the run that uses the adapter."""
    data: RowsConfig = field(default_factory=RowsConfig)
    """The rows."""
    encoder: Encoder = field(default_factory=MiniLmEncoder)
    """What turns a prompt into a vector; it stays as it is."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """What is trained."""
    target: TargetConfig = field(default_factory=TargetConfig)
    """What it is taught."""
    optimizer: AdapterOptimizerConfig = field(default_factory=AdapterOptimizerConfig)
    """Optimiser and learning rate."""
    training: AdapterTrainingConfig = field(default_factory=AdapterTrainingConfig)
    """How long, how large, how precise."""
    stopping: StoppingConfig = field(default_factory=StoppingConfig)
    """Held-out rows and early stopping."""
    checkpoint: AdapterCheckpointConfig = field(default_factory=AdapterCheckpointConfig)
    """Checkpoints."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """Run folder and trackers."""
