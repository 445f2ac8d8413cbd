"""Losses of image methods, as pure functions of tensors; one file per family of methods."""

from diffusion.losses.awm import RATIOS, WEIGHTINGS, PolicyTerm, awm_log_prob, awm_policy_term, matching_error
from diffusion.losses.distance import KL_WEIGHTINGS, elbo_weight, velocity_kl

__all__ = [
    "KL_WEIGHTINGS",
    "RATIOS",
    "WEIGHTINGS",
    "PolicyTerm",
    "awm_log_prob",
    "awm_policy_term",
    "elbo_weight",
    "matching_error",
    "velocity_kl",
]
