"""COPO's loss: the clipped surrogates of two advantages, blended per sample."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.objectives.surrogate import clipped_surrogate
from align.objectives.units import per_unit


def copo_loss(
    log_probs: Float[Tensor, "n *units"],
    old_log_probs: Float[Tensor, "n *units"],
    local_advantages: Float[Tensor, "n"],
    global_advantages: Float[Tensor, "n"],
    local_weight: Float[Tensor, "n"],
    *,
    global_weight: Float[Tensor, "n"] | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Float[Tensor, "n *units"]:
    """Loss of each token; aggregate with `seq_mean_token_mean`.

        l = (1 - w) l_global + w l_local        each the clipped surrogate under its advantage

    The blend is of losses, not of advantages: the two may clip on different sides.

    Args:
        log_probs: of the policy that is trained, nats, with gradient.
        old_log_probs: of the policy that sampled, nats.
        local_advantages: compared within the group.
        global_advantages: compared between groups, the same for all of a group; `global_advantages` in the aux of
            `copo_consistency`.
        local_weight: w in [0, 1]; in the same aux.
        global_weight: in the same aux; 1 - w if None.
        clip_low: how far the ratio may fall below 1.
        clip_high: how far the ratio may rise above 1.
        dual_clip: bound on the ratio of bad samples.

    References:
        Han et al., "COPO: Consistency-Aware Policy Optimization", arXiv:2508.04138, the entropy-based blend.
    """
    ranges = (clip_low, clip_high, dual_clip)
    local = clipped_surrogate(log_probs, old_log_probs, local_advantages, *ranges)
    between = clipped_surrogate(log_probs, old_log_probs, global_advantages, *ranges)
    rest = 1 - local_weight if global_weight is None else global_weight
    return per_unit(rest.to(local), local) * between + per_unit(local_weight.to(local), local) * local
