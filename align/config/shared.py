"""Settings that every method of both branches has. Torch-free: `--help`, `configs`, `schema` and `plan` read this file.

The string under each field is its help text, its description in the schema and its line in the reference page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from align.config.numbers import Count, Decay, NonNegativeFloat, PositiveFloat, PositiveInt
from align.config.paths import FunctionPath

STRICT = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""How a branch's root dataclass is validated, by `@with_config(STRICT)`: no guessed types, no unknown keys."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay."""
    eps: PositiveFloat = 1e-8
    """Added to the square root of the second moment."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, fall linearly to 0, or fall along a cosine to 0."""
    warmup_updates: Count = 0
    """Optimiser updates over which the learning rate rises linearly from 0."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Clip the global gradient norm to this value; `null` switches clipping off (the norm is logged all the same)."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning."""

    rank: PositiveInt = 32
    """Rank of the update matrices."""
    alpha: PositiveFloat = 64.0
    """The update is scaled by alpha / rank."""
    targets: Literal["attention", "feed_forward", "all_linear"] | tuple[str, ...] = "attention"
    """Which layers: a named set of the model family, or a list of module-name endings."""
    dropout: Decay = 0.0
    """Dropout in front of the adapter. Anything but 0 makes the ratio of an unchanged policy differ from 1."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Moving average of the trainable weights; evaluation and exports use it."""

    decay: Decay = 0.9
    """Largest decay d; the effective one is min((1 + s) / (10 + s), d) after s updates."""
    every: PositiveInt = 1
    """Average after every so many optimiser updates."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how large, how precise."""

    steps: PositiveInt = 100
    """Steps of the run. A step is one collection (a rollout, or the next pairs) and its optimiser updates."""
    epochs: PositiveFloat | None = None
    """Instead of `steps`, for methods that learn from stored rows: how often each is read, 3 or 0.5. The run counts its
    rows, and its saved config has the steps."""
    micro_batch_size: PositiveInt = 8
    """Samples in one forward and backward pass of one process; changes speed and memory, not the result."""
    updates_per_rollout: PositiveInt = 1
    """Optimiser updates that one collection serves. 1 is strictly on-policy."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the network. Log-probabilities, ratios, KL and the trained weights stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile each repeated block of the network with `torch.compile`: faster passes after minutes of compilation."""
    ema: EmaConfig | None = field(default_factory=EmaConfig)
    """Moving average of the trained weights; `null` switches it off."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a checkpoint is written and which ones stay."""

    every: PositiveInt = 50
    """Write a checkpoint after every so many steps (and always after the last one)."""
    keep_last: PositiveInt = 2
    """How many of the newest checkpoints stay."""
    keep_best: Count = 1
    """How many of the best checkpoints stay beside them."""
    best_metric: str = "reward"
    """The metric that ranks checkpoints; higher is better."""


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where a run writes and who hears of it."""

    directory: str = "runs"
    """Folder that holds the run folders."""
    name: str | None = None
    """Name of the run folder; `null` takes the config's file name and the first free number."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Trackers beside metrics.jsonl, any set at once."""
    project: str = "align-suite"
    """Project name for trackers that have one."""
    images_every: Count = 10
    """Write pictures of the current samples to disk and to the trackers after every so many steps; 0 = never."""
    images_per_step: Count = 16
    """How many pictures are written then."""
    reward_tables_mb: NonNegativeFloat = 200.0
    """Disk, in MB, for the reward tables of all steps (`align replay`, `align audit`). Where they would take more,
    every 2nd, 4th, ... step is kept; 0 = none."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """One reward: a function that scores samples."""

    function: FunctionPath
    """Name of a built-in reward, an import path `package.module:function`, or a file `my_rewards.py:function`."""
    name: str | None = None
    """Name in metrics and tables; `null` takes the function's name."""
    weight: float = 1.0
    """Weight in the sum. 0 makes it a metric: scored and logged, never trained on."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments handed to the function (Any: they belong to the user's function)."""
