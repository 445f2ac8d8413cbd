"""How many: samples, batches, updates, network evaluations. The plan, the checks and the run use it.

Whole numbers only; torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import singledispatch
from typing import Any

from align.config.shared import TrainingConfig
from diffusion.chain_steps import trained_count
from diffusion.config import (
    GUIDANCE_AS_INPUT,
    AwmConfig,
    ChainConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    EvaluationConfig,
    FlowGrpoConfig,
    NftConfig,
    OnlineDpoConfig,
    RolloutConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)
from diffusion.needs import rows_per_step


def samples_per_step(rollout: RolloutConfig) -> int:
    """N = prompts_per_step * group_size: pictures of a step, over all processes."""
    return rollout.prompts_per_step * rollout.group_size


def process_slice(rows: int, rank: int, world: int) -> tuple[int, int]:
    """[start, end) of the contiguous part of `rows` for process `rank` of `world`; parts differ by at most one row."""
    return rows * rank // world, rows * (rank + 1) // world


def rows_per_update(config: DiffusionRun, processes: int) -> tuple[int, int]:
    """Fewest and most rows of a process in one optimiser update; equal when the processes divide the update."""
    chunk = rows_per_step(config) // config.training.updates_per_rollout
    sizes = [end - start for start, end in (process_slice(chunk, rank, processes) for rank in range(processes))]
    return min(sizes), max(sizes)


def micro_batch_rows(config: DiffusionRun, processes: int) -> int:
    """Most rows (pictures, or pairs of them) that a process has in one micro-batch."""
    return min(config.training.micro_batch_size, rows_per_update(config, processes)[1])


def batches(rows: int, size: int) -> int:
    """Runs of at most `size` rows."""
    return -(-rows // size)


def times_with_interval(steps: int, every: int) -> int:
    """How often something is done before the first step, after each `every`-th (0 = none) and after the last one."""
    inside = steps // every if every else 0
    return 1 + inside + (0 if every and steps % every == 0 else 1)


def evaluations_of(config: DiffusionRun) -> int:
    """Held-out evaluations of a run, the ones before and after included; 0 without held-out prompts."""
    return 0 if config.prompts.heldout is None else times_with_interval(config.training.steps, config.evaluation.every)


def strips_of(config: DiffusionRun) -> int:
    """How often the progress strip is drawn, before the first step and after the last included; 0 = never."""
    settings: EvaluationConfig = config.evaluation
    drawn = config.prompts.heldout is not None and settings.strip_every and settings.strip_prompts
    return times_with_interval(config.training.steps, settings.strip_every) if drawn else 0


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Network evaluations for one picture of a step.

    Attributes:
        label: what for.
        count: evaluations; a forward and backward pass counts as three.
        note: how it comes about.
    """

    label: str
    count: Fraction
    note: str


def guidance_factor(guidance_scale: float) -> int:
    """Network calls per velocity: classifier-free guidance needs a second one."""
    return 1 if guidance_scale == 1.0 else 2


def counted_rollout(config: DiffusionRun) -> RolloutConfig:
    """The rollout as its cost is counted: guidance that is an input of the network costs no second pass."""
    if isinstance(config.model, GUIDANCE_AS_INPUT):
        return replace(config.rollout, guidance_scale=1.0)
    return config.rollout


def rollout_passes(rollout: RolloutConfig) -> Passes:
    """Network evaluations that sample one picture."""
    factor = guidance_factor(rollout.guidance_scale)
    note = f"{rollout.num_inference_steps} steps" + (" x 2 for guidance" if factor == 2 else ", one pass each")
    return Passes(label="rollout", count=Fraction(rollout.num_inference_steps * factor), note=note)


@singledispatch
def training_passes(algorithm: Any, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    """Network evaluations that train on one picture once (`Any`: the members of `Algorithm`)."""
    raise TypeError(f"no cost is known for {type(algorithm).__name__}")


@training_passes.register
def _(algorithm: AwmConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    updates = training.updates_per_rollout
    late = Fraction(1) if algorithm.off_policy else Fraction(updates - 1, updates)
    passes = [Passes(label="training", count=Fraction(3 * draws), note=f"{draws} times, forward 1 + backward 2")]
    if algorithm.kl_beta > 0:
        passes.append(Passes(label="base model", count=Fraction(draws), note="for kl_beta; 0 saves it"))
    if algorithm.lagged is not None and algorithm.lagged.kl_beta > 0:
        passes.append(Passes(label="lagged policy", count=Fraction(draws), note="for lagged.kl_beta; 0 saves it"))
    if late:
        note = "off-policy: likelihood under the lagged policy" if algorithm.off_policy else "samples of later updates"
        passes.append(Passes(label="old likelihood", count=draws * late, note=note))
    return tuple(passes)


@training_passes.register
def _(algorithm: ChainConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    steps, factor = trained_count(algorithm.steps, rollout.num_inference_steps), guidance_factor(rollout.guidance_scale)
    forward = steps * factor
    backward = 2 * steps * (1 if algorithm.detach_unconditional else factor)
    note = f"{steps} steps, forward 1 + backward 2" + (" x 2 for guidance" if factor == 2 else "")
    passes = [Passes(label="training", count=Fraction(forward + backward), note=note)]
    if isinstance(algorithm, FlowGrpoConfig) and algorithm.kl_beta > 0:
        passes.append(Passes(label="base model", count=Fraction(forward), note="for kl_beta; 0 saves it"))
    return tuple(passes)


# --- methods that train on final pictures ----------------------------------------------------------------------------


def _training(draws: int | Fraction, kl_beta: float, note: str) -> tuple[Passes, ...]:
    """Training, and the base model where there is a pull to it."""
    training = Passes(label="training", count=Fraction(3 * draws), note=f"{note}, forward 1 + backward 2")
    base = Passes(label="base model", count=Fraction(draws), note="for kl_beta; 0 saves it")
    return (training, base) if kl_beta > 0 else (training,)


@training_passes.register
def _(algorithm: NftConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    old = Passes(label="old policy", count=Fraction(draws), note="the lagged one, which also rolls out")
    return (*_training(draws, algorithm.kl_beta, f"{draws} times"), old)


@training_passes.register
def _(algorithm: OnlineDpoConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    share = Fraction(2 * draws, rollout.group_size)
    base = Passes(label="base model", count=share, note="the reference of both pictures of a pair")
    return (*_training(share, 0.0, f"2 of {rollout.group_size} pictures x {draws} times"), base)


@training_passes.register
def _(algorithm: SftBestConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    share = Fraction(draws, rollout.group_size)
    return _training(share, algorithm.kl_beta, f"1 of {rollout.group_size} pictures x {draws} times")


@training_passes.register
def _(algorithm: RwrConfig | SftConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    return _training(draws, algorithm.kl_beta, f"{draws} times")


@training_passes.register
def _(algorithm: DiffusionDpoConfig, rollout: RolloutConfig, training: TrainingConfig) -> tuple[Passes, ...]:
    draws = algorithm.times.draws * guidance_factor(rollout.guidance_scale)
    base = Passes(label="base model", count=Fraction(2 * draws), note="the reference of both pictures")
    return (*_training(2 * draws, 0.0, f"2 pictures x {draws} times"), base)
