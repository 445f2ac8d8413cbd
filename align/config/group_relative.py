"""Settings of the estimators that everybody knows: a sample against its group. Torch-free.

Each class is the registration of its `kind`; the formula is the file of that name in `align/advantages`. Presets of the
literature differ only in these numbers (docs: "One standard deviation, many presets").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.config.declarations import Scope, declare
from align.config.numbers import NonNegativeFloat


def _grpo_scope(options: Grpo) -> Scope:
    return "batch" if options.scale == "batch" else "group"


def _flow_grpo_scope(options: FlowGrpo) -> Scope:
    return "batch" if options.global_std else "group"


@declare(requires=("group_ids",), scope=_grpo_scope)
@dataclass(frozen=True, kw_only=True)
class Grpo:
    """(reward - group mean) / (std + eps). Shao et al., arXiv:2402.03300, section 4.1.2.

    Use it as the plain default: every prompt weighs alike, however far its rewards spread.
    """

    kind: Literal["grpo"] = "grpo"
    """Selects this estimator."""
    scale: Literal["group", "batch", "none"] = "group"
    """Whose standard deviation divides: the sample's group, the whole batch, or nobody's."""
    unbiased: bool = True
    """Divide squared deviations by n - 1 (true) or by n (false)."""
    eps: NonNegativeFloat = 1e-4
    """Keeps the division finite."""
    eps_mode: Literal["add", "floor"] = "add"
    """How eps enters: std + eps, or max(std, eps)."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""
    leave_one_out_std: bool = False
    """Mean and standard deviation of the *other* samples of the group, as in NeMo-RL; needs `scale: group`."""


@declare(requires=("group_ids",))
@dataclass(frozen=True, kw_only=True)
class DrGrpo:
    """reward - group mean. Liu et al., arXiv:2503.20783, section 3.

    Use it where the unit of the rewards means something, or prompts whose rewards hardly differ should hardly count.
    """

    kind: Literal["dr_grpo"] = "dr_grpo"
    """Selects this estimator."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids",))
@dataclass(frozen=True, kw_only=True)
class Rloo:
    """reward - mean of the other samples of the group. Ahmadian et al., arXiv:2402.14740.

    Use it like dr_grpo, for an unbiased baseline in small groups.
    """

    kind: Literal["rloo"] = "rloo"
    """Selects this estimator."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""


@declare(requires=("group_ids",), scope=_flow_grpo_scope)
@dataclass(frozen=True, kw_only=True)
class FlowGrpo:
    """Group mean, standard deviation of the whole batch, population form, + 1e-4: Flow-GRPO and AWM as released.

    Use it for pictures with continuous scores: tiny differences of one prompt stay tiny. The default of AWM here.
    """

    kind: Literal["flow_grpo"] = "flow_grpo"
    """Selects this estimator."""
    global_std: bool = True
    """Divide by the standard deviation of all rewards of the batch (released); false: of the group (the papers)."""
    unbiased: bool = False
    """Divide squared deviations by n - 1 (true) or by n (false, released)."""
    eps: NonNegativeFloat = 1e-4
    """Keeps the division finite."""
    eps_mode: Literal["add", "floor"] = "add"
    """How eps enters: std + eps, or max(std, eps)."""
    singleton: Literal["zero", "raw", "error"] = "zero"
    """What a group with fewer than two scored samples gets: 0, the reward itself, or an error."""
