"""Preference losses: the DPO family and SimPO as pure functions of log-probabilities. Table: docs/preference_losses.md.

Everything here is float32 or better whatever the network ran in.
"""

from preference.losses import bounded, logistic  # noqa: F401  they enter their losses in the table
from preference.losses.divergences import divergence_score
from preference.losses.dpo import PairLosses, dpo
from preference.losses.modifiers import ld_log_probs, negative_log_likelihood, wpo_weights
from preference.losses.pair import LOSSES, Pair
from preference.losses.simpo import simpo

__all__ = [
    "LOSSES",
    "Pair",
    "PairLosses",
    "available",
    "divergence_score",
    "dpo",
    "ld_log_probs",
    "negative_log_likelihood",
    "simpo",
    "wpo_weights",
]


def available() -> tuple[str, ...]:
    """Names of all losses of `dpo`."""
    return tuple(LOSSES)
