"""pass@k as an objective: what the best sample adds to its group, and nothing for the others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.estimators import PassAtK
from align.groups import group_max, group_size, group_std


@estimator(PassAtK)
def pass_at_k(inputs: AdvantageInputs, options: PassAtK) -> Float[Tensor, "n"]:
    """Lead of the best sample of a group over its second best; 0 for all others.

        A_best = r_best - r_second        optionally / (s + eps)

    The best of k is what would be lost without that one sample. Two samples that share the first place have no lead:
    the group gets 0.

    References:
        Tang et al., "Optimizing Language Models for Inference Time Objectives using Reinforcement Learning",
        arXiv:2503.19595, the leave-one-out form of the maximum. Equation number not checked.
    """
    rewards, ids = inputs.rewards, inputs.ids
    best = rewards == group_max(rewards, ids)
    ahead = best & (group_size(ids, where=best) == 1)
    lead = rewards - group_max(rewards, ids, where=~best)
    if options.standardise:
        lead = lead / (group_std(rewards, ids, unbiased=options.unbiased) + options.eps)
    return torch.where(ahead, lead, 0.0)
