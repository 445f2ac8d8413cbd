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
    """Text file (a prompt a line), JSONL file (`prompt`, columns for rewards), or a set like `builtin:ocr/train`."""
    heldout: FilePath | None = "builtin:tiny/heldout"
    """Prompts for evaluation, never trained on; `null` switches evaluation off."""


@dataclass(frozen=True, kw_only=True)
class OdeSampler:
    """The deterministic sampler: Euler steps of the ODE on flow models, DDIM with eta 0 on the others."""

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
class DanceSdeSampler:
    """DanceGRPO's SDE steps: constant diffusion. Xue et al., arXiv:2505.07818."""

    kind: Literal["dance_sde"] = "dance_sde"
    """Selects this sampler."""
    noise_level: NonNegativeFloat = 0.3
    """Noise scale eta; 0 is the ODE."""


@dataclass(frozen=True, kw_only=True)
class CpsSampler:
    """Coefficients-preserving steps: noise without excess noise in the picture. Wang and Yu, arXiv:2509.05952."""

    kind: Literal["cps"] = "cps"
    """Selects this sampler."""
    noise_level: Share = 0.8
    """a: std = t_next sin(a pi/2); 0 is the ODE, 1 renoises completely."""


@dataclass(frozen=True, kw_only=True)
class DdimSampler:
    """DDIM steps for models that predict noise or v (SD1, SD2, SDXL). Song et al., arXiv:2010.02502."""

    kind: Literal["ddim"] = "ddim"
    """Selects this sampler."""
    eta: Share = 1.0
    """0 is deterministic, 1 has the variance of ancestral sampling."""


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


@dataclass(frozen=True, kw_only=True)
class DpmSolverSampler:
    """DPM-Solver++(2M) for flow models: deterministic, second order in data prediction. arXiv:2211.01095."""

    kind: Literal["dpm_solver"] = "dpm_solver"
    """Selects this sampler."""


Sampler = Annotated[
    OdeSampler | FlowSdeSampler | DanceSdeSampler | CpsSampler | DdimSampler | SaSolverSampler | DpmSolverSampler,
    Field(discriminator="kind"),
]


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
    share_initial_noise: bool = False
    """Start all pictures of a prompt from the same noise (DanceGRPO)."""


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
    group_column: str | None = None
    """Column of the held-out prompts that says whom a prompt stands for: parity of means across them is reported."""
    strip_prompts: Count = 6
    """How many held-out prompts the progress strip follows, one fixed seed each."""
    strip_every: Count = 10
    """Draw the strip's pictures after every so many steps; 0 = never."""
