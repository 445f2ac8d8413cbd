"""Methods that learn from the steps of a denoising chain: REINFORCE, DDPO, LOOP, Flow-GRPO, DanceGRPO. Torch-free.

A preset of the literature is one of these with numbers: RLOO is `reinforce` with `pipeline.base: rloo`, MixGRPO is
`flow_grpo` with a sliding window, Flow-GRPO-Fast is `flow_grpo` with a random window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass(frozen=True, kw_only=True)
class AllSteps:
    """Every step is noisy and the first share of them is trained. Liu et al., arXiv:2505.05470."""

    kind: Literal["all"] = "all"
    """Selects this choice of steps."""
    share: Share = 0.99
    """The first int(n * share) of n steps are trained; 0.99 leaves out the last and its tiny noise (DDPO: 1)."""


@dataclass(frozen=True, kw_only=True)
class RandomWindow:
    """Neighbouring steps at a random place are noisy and trained, all others deterministic: Flow-GRPO-Fast."""

    kind: Literal["random_window"] = "random_window"
    """Selects this choice of steps."""
    size: PositiveInt = 2
    """Steps in the window."""
    earliest: Share = 0.0
    """The window begins at or after this fraction of the schedule (0 is pure noise)."""
    latest: Share = 0.5
    """The window ends before this fraction of the schedule."""


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """Neighbouring steps are noisy and trained; they move through the schedule, then begin again. arXiv:2507.21802."""

    kind: Literal["sliding_window"] = "sliding_window"
    """Selects this choice of steps."""
    size: PositiveInt = 4
    """Steps in the window."""
    every: PositiveInt = 25
    """Training steps at one place."""
    stride: PositiveInt = 1
    """How many steps of the schedule the window moves on."""
    earliest: Share = 0.0
    """First place, as a fraction of the schedule (0 is pure noise)."""
    latest: Share = 0.99
    """The window ends before this fraction of the schedule; 0.99 leaves out the last step, whose noise is tiny."""


@dataclass(frozen=True, kw_only=True)
class RandomSteps:
    """Every step but the last is noisy, and a random subset of them is trained. DanceGRPO, arXiv:2505.07818."""

    kind: Literal["random"] = "random"
    """Selects this choice of steps."""
    share: Share = 0.6
    """int((n - 1) * share) of the first n - 1 steps are trained, drawn anew for each training step."""


Steps = Annotated[AllSteps | RandomWindow | SlidingWindow | RandomSteps, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class BranchingConfig:
    """Rollouts of a prompt share their noise and part ways at given steps: a tree of pictures."""

    at: tuple[Count, ...] = (0,)
    """Where the tree splits: places among the trained steps, ascending; 0 is the first trained step."""
    factor: Annotated[int, Field(ge=2)] = 2
    """Branches of each split; `rollout.group_size` is factor to the power of the number of splits."""
    edges: Literal["once", "each"] = "once"
    """A step that several rollouts share counts once, or once for each of them."""


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """What all methods on a denoising chain have."""

    steps: Steps = field(default_factory=AllSteps)
    """Which steps of the rollout are noisy, and which are trained."""
    log_prob: Literal["mean", "sum"] = "mean"
    """Log-probability of a step: mean over latent elements (all released code; clip 1e-4), or the sum, the density."""
    steps_per_pass: PositiveInt = 1
    """Trained steps of a micro-batch in one pass; more is faster and takes more memory, the result is the same."""
    storage_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """How the states of the chain are kept; rollout and update both see the rounded states."""
    detach_unconditional: bool = False
    """No gradient through the unconditional branch of classifier-free guidance (Flow-GRPO as released)."""
    skip_zero_advantages: bool = False
    """Save the passes of micro-batches in which every advantage is 0; the result is the same."""


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(ChainConfig):
    """REINFORCE: -A log p, one update per rollout, no ratio. With `pipeline.base: rloo` it is RLOO."""

    kind: Literal["reinforce"] = "reinforce"
    """Selects this method."""


@dataclass(frozen=True, kw_only=True)
class DdpoConfig(ChainConfig):
    """DDPO: PPO's clipped ratio for each denoising step. Black et al., arXiv:2305.13301; numbers as released."""

    kind: Literal["ddpo"] = "ddpo"
    """Selects this method."""
    clip_range: PositiveFloat = 1e-4
    """Clip of the ratio of each step."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig(ChainConfig):
    """LOOP: leave-one-out baseline, several rollouts per prompt, clipped ratio for each step. arXiv:2503.00897."""

    kind: Literal["loop"] = "loop"
    """Selects this method."""
    objective: Literal["ppo_min", "clip_only"] = "ppo_min"
    """`ppo_min`: min(rho A, clip(rho) A). `clip_only`: clip(rho) A, which never pulls a strayed ratio back."""
    clip_range: PositiveFloat = 1e-4
    """Clip of the ratio of each step."""


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """GRPO-Guard's ratio: without the bias towards small values, of one scale for all steps."""

    divide_by_dt: bool = True
    """Divide the policy term of each step by its length in time, as released."""


@dataclass(frozen=True, kw_only=True)
class FlowGrpoConfig(ChainConfig):
    """Flow-GRPO and what came after it: windows, branching, GRPO-Guard. arXiv:2505.05470; numbers as released."""

    kind: Literal["flow_grpo"] = "flow_grpo"
    """Selects this method."""
    clip_range: PositiveFloat = 1e-4
    """Clip of the ratio of each step; released: 1e-4, windows 1e-5, GRPO-Guard 2e-6."""
    kl_beta: NonNegativeFloat = 0.0
    """Weight of the distance to the base model; 0 saves that pass."""
    kl_norm: Literal["released", "exact", "velocity"] = "released"
    """The distance: exact Gaussian KL (nats), that times |dt| / elements (released), or squared output difference."""
    guard: GuardConfig | None = None
    """GRPO-Guard's ratio; `null` is the plain one."""
    branching: BranchingConfig | None = None
    """Share noise within a group and split at given steps; `null`: all rollouts are independent."""


@dataclass(frozen=True, kw_only=True)
class DanceGrpoConfig(ChainConfig):
    """DanceGRPO: clipped ratio on a random subset of steps. Xue et al., arXiv:2505.07818; numbers as released."""

    kind: Literal["dance_grpo"] = "dance_grpo"
    """Selects this method."""
    steps: Steps = field(default_factory=RandomSteps)
    """Which steps of the rollout are noisy, and which are trained."""
    clip_range: PositiveFloat = 1e-4
    """Clip of the ratio of each step."""
