"""Soft-min over user groups: the groups that score low in this batch weigh more in its loss."""

from __future__ import annotations

import torch

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.shapers import UserSoftMin
from align.groups import group_mean
from align.objectives import per_unit


@estimator(UserSoftMin)
def user_soft_min(inputs: AdvantageInputs, options: UserSoftMin) -> AdvantageResult:
    """The advantage times the weight of the sample's user group.

        A_i = lambda_h(i) A_i,    lambda_h = exp(-m_h / tau) / sum_h' (n_h' / n) exp(-m_h' / tau)

        m_h: mean score of user group h in the batch, n_h: its samples. The weights of all samples have mean 1.

    It is the gradient of S = -tau log sum_h (n_h / n) exp(-m_h / tau) with respect to the groups' means, up to the cap.
    For tau -> infinity that is the mean over all samples (nothing changes), for tau -> 0 it is max-min: only the worst
    group is trained on. It weighs prompts and users; a soft-min over *rewards* of a sample is the combination of that
    name.

    Samples with a negative number belong to nobody: they keep their advantage and do not count.

    References:
        Chakraborty et al., "MaxMin-RLHF", arXiv:2402.08925, the egalitarian objective; there the groups are found by
        expectation maximisation and have reward models of their own. The soft form is the derivative above.
        Equation number not checked.
    """
    users, advantages = inputs.tensor("user_groups"), inputs.tensor("advantages")
    scores = inputs.rewards if inputs.rewards.ndim == 1 else inputs.rewards.mean(dim=1)
    known = users >= 0
    if not known.any():
        return AdvantageResult(advantages=advantages)
    means = group_mean(scores, users)
    # Relative to the lowest mean, so that no exponential overflows however small tau is.
    weights = torch.where(known, -(means - means[known].min()) / options.tau, 0.0).exp()
    weights = weights / weights[known].mean()
    weights = torch.where(known, weights.clamp(max=options.largest), 1.0)
    stats = {"user_groups/worst": float(means[known].min()), "user_groups/largest_weight": float(weights[known].max())}
    return AdvantageResult(advantages=advantages * per_unit(weights, advantages), stats=stats)
