"""XRPO's novelty bonus, a reconstruction: no official code or paper text could be read; two restatements agree."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.shapers import XrpoNovelty
from align.groups import group_mean
from align.objectives import mean_log_probs, per_unit


@estimator(XrpoNovelty)
def xrpo_novelty(inputs: AdvantageInputs, options: XrpoNovelty) -> Float[Tensor, "n *t"]:
    """More advantage for good answers that the policy found less likely than the rest of the group.

        s_i   = mean log-probability per token under the sampling policy
        eta_i = exp(s_i - mean of s in the group)
        A_i  <- A_i + min( max(lam (1 - eta_i), 0), kappa A_i )        where A_i > 0

    Never less than before, never more than 1 + kappa times as much, and nothing changes for answers that are likelier
    than average, have A <= 0, or stand in groups without spread.

    References:
        Bamba et al., "XRPO: Pushing the Limits of GRPO with Targeted Exploration and Exploitation", arXiv:2510.06672,
        the novelty-aware advantage sharpening. Equation number not checked.

    Note:
        Assumed where the restatements differ: the bound is kappa A, not kappa |A| (the same where A > 0).
        `logprobs` are those of the policy that sampled. Densities of pictures are no probabilities: off there.
    """
    advantages, logprobs = inputs.tensor("advantages"), inputs.tensor("logprobs")
    trained = torch.ones_like(logprobs, dtype=torch.bool) if inputs.mask is None else inputs.mask != 0
    likelihood = mean_log_probs(logprobs, trained)
    surplus = likelihood - group_mean(likelihood, inputs.ids, where=trained.any(dim=1))
    # Likelier than average earns nothing, however large exp() would be.
    bonus = per_unit(options.lam * -torch.expm1(surplus.clamp(max=0.0)), advantages)
    return torch.where(advantages > 0, advantages + torch.minimum(bonus, options.kappa * advantages), advantages)
