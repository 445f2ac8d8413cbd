"""Losses of image methods, as pure functions of tensors; one file per family of methods."""

from diffusion.losses.awm import RATIOS, WEIGHTINGS, PolicyTerm, awm_log_prob, awm_policy_term, matching_error
from diffusion.losses.distance import KL_WEIGHTINGS, elbo_weight, velocity_kl
from diffusion.losses.nft import MODES, implicit_outputs, nft_loss, optimality, self_normalised_error
from diffusion.losses.pairs import implicit_reward, pair_loss
from diffusion.losses.regression import REWARD_WEIGHTS, exponential_weights, raw_weights, weighted_regression

__all__ = [
    "KL_WEIGHTINGS",
    "MODES",
    "RATIOS",
    "REWARD_WEIGHTS",
    "WEIGHTINGS",
    "PolicyTerm",
    "awm_log_prob",
    "awm_policy_term",
    "elbo_weight",
    "exponential_weights",
    "implicit_outputs",
    "implicit_reward",
    "matching_error",
    "nft_loss",
    "optimality",
    "pair_loss",
    "raw_weights",
    "self_normalised_error",
    "velocity_kl",
    "weighted_regression",
]
