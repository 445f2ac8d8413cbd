"""How pictures are drawn for training and for evaluation, and from which prompts. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.paths import FilePath
from align.config.shared import RewardConfig


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
