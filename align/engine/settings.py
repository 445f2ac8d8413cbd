"""The shared sections of a branch's configuration, as the engine takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from align.config.shared import CheckpointConfig, OptimizerConfig, OutputConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run has.

    Attributes:
        shown: the whole resolved config, for trackers (Any: nested settings, handed through).
        resume_command: what to type to go on after a stop; empty means `align train <run folder>`.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    seed: int = 0
    shown: Mapping[str, Any] = field(default_factory=dict)
    resume_command: str = ""

    @classmethod
    def of(cls, config: Any, *, resume_command: str = "") -> RunSettings:  # Any: the root dataclass of any branch
        """From a root dataclass with the fields optimizer, training, checkpoint, output and seed."""
        return cls(
            optimizer=config.optimizer,
            training=config.training,
            checkpoint=config.checkpoint,
            output=config.output,
            seed=config.seed,
            shown=asdict(config),
            resume_command=resume_command,
        )
