"""What a method needs of a step, of memory and of the model: asked by the plan, the checks and the run. Torch-free."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from diffusion.chain_steps import trained_count
from diffusion.config import (
    OFFLINE,
    ChainConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    OnlineDpoConfig,
    SftBestConfig,
    SftConfig,
)


def is_offline(config: DiffusionRun) -> bool:
    """Whether the run learns from stored pictures, without rollouts and rewards."""
    return isinstance(config.algorithm, OFFLINE)


@singledispatch
def reads_reference(algorithm: Any) -> bool:
    """Whether the model from before training is asked for its outputs (`Any`: the members of `Algorithm`)."""
    return getattr(algorithm, "kl_beta", 0.0) > 0


@reads_reference.register
def _(algorithm: OnlineDpoConfig | DiffusionDpoConfig) -> bool:
    return True


def lagged_copies(config: DiffusionRun) -> int:
    """Slow copies of the trained weights that the method keeps."""
    return int(getattr(config.algorithm, "lagged", None) is not None)


def network_rows(config: DiffusionRun) -> int:
    """Noised pictures that one row of a micro-batch puts through the network at once."""
    return _network_rows(config.algorithm, config)


@singledispatch
def _network_rows(algorithm: Any, config: DiffusionRun) -> int:
    return algorithm.times.draws


@_network_rows.register
def _(algorithm: OnlineDpoConfig | DiffusionDpoConfig, config: DiffusionRun) -> int:
    return 2 * algorithm.times.draws  # both pictures of a pair


@_network_rows.register
def _(algorithm: ChainConfig, config: DiffusionRun) -> int:
    return min(algorithm.steps_per_pass, trained_count(algorithm.steps, config.rollout.num_inference_steps))


def rows_per_step(config: DiffusionRun) -> int:
    """Rows that the updates of a step are cut from, over all processes."""
    return _rows_per_step(config.algorithm, config)


@singledispatch
def _rows_per_step(algorithm: Any, config: DiffusionRun) -> int:
    return config.rollout.prompts_per_step * config.rollout.group_size


@_rows_per_step.register
def _(algorithm: OnlineDpoConfig | SftBestConfig, config: DiffusionRun) -> int:
    return config.rollout.prompts_per_step  # one pair, one best picture of each prompt


@_rows_per_step.register
def _(algorithm: DiffusionDpoConfig, config: DiffusionRun) -> int:
    return algorithm.pairs_per_step


@_rows_per_step.register
def _(algorithm: SftConfig, config: DiffusionRun) -> int:
    return algorithm.images_per_step


def row_name(config: DiffusionRun) -> str:
    """What a row of an update is, in the plural."""
    return "pairs" if isinstance(config.algorithm, OnlineDpoConfig | DiffusionDpoConfig) else "pictures"
