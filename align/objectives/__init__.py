"""Pieces of a policy-gradient loss: ratio, clipped surrogate, aggregation, KL estimators, and the losses that come with
an estimator of advantages. Pure; text and images alike.

Everything here is float32 or better whatever the network ran in; bfloat16 inputs are raised first.
"""

from align.objectives.aggregation import aggregate
from align.objectives.copo import copo_loss
from align.objectives.drpo import drpo_objective, drpo_penalty, mean_log_probs, weighted_likelihood
from align.objectives.gated_pull import gated_pull
from align.objectives.hapo import EntropyPositions, adaptive_clip, entropy_positions, hapo_surrogate, redistributed
from align.objectives.kl import kl_estimate
from align.objectives.reward_weights import effective_share, exponential_weights
from align.objectives.surrogate import clip_statistics, clipped_surrogate
from align.objectives.units import log_ratio, per_unit

__all__ = [
    "EntropyPositions",
    "adaptive_clip",
    "aggregate",
    "clip_statistics",
    "clipped_surrogate",
    "copo_loss",
    "drpo_objective",
    "drpo_penalty",
    "effective_share",
    "entropy_positions",
    "exponential_weights",
    "gated_pull",
    "hapo_surrogate",
    "kl_estimate",
    "log_ratio",
    "mean_log_probs",
    "per_unit",
    "redistributed",
    "weighted_likelihood",
]
