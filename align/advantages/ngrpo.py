"""NGRPO: GRPO with a virtual perfect sample in every group, so that groups of failures teach, too."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.outcomes import same_number
from align.advantages.registry import estimator
from align.config.estimators import Ngrpo
from align.groups import group_is_constant, group_mean, group_size


@estimator(Ngrpo)
def ngrpo(inputs: AdvantageInputs, options: Ngrpo) -> Float[Tensor, "n"]:
    """Group z-score after K virtual samples of reward r_max have joined the group.

        A_i = (r_i - M) / (S + 1e-6)        M, S: mean and standard deviation of the G rewards and K times r_max

    A group of equal rewards below r_max gets -sqrt(K (G+K-1) / (G (G+K))) each, -1/sqrt(G+1) for K = 1, whatever the
    reward; one at r_max gets exactly 0 (rule C1 for the extended group). The sum over a group is never positive.

    References:
        Nan et al., "NGRPO", arXiv:2509.18851, advantage calibration. Equation number not checked.

    Raises:
        ValueError: a reward is above r_max.

    Note:
        Paper and released code agree (n - 1 under the root). For a group of one the released code ignores the virtual
        sample and returns the reward (`singleton="raw"`); here the formula holds. The published recipe clips the
        ratio to [0.84, 1.24], drops groups that are all correct and keeps groups that are all wrong.
    """
    rewards, ids = _within_reach(inputs.rewards, options.r_max), inputs.ids
    size, virtual, top = group_size(ids).double(), options.virtual, options.r_max
    extended = size + virtual
    mean = top + size * group_mean(rewards - top, ids) / extended
    squares = size * group_mean((rewards - mean).square(), ids) + virtual * (top - mean).square()
    std = (squares / (extended - float(options.unbiased)).clamp(min=1.0)).sqrt()
    perfect = group_is_constant(rewards, ids) & ((rewards == top) | (virtual == 0))
    advantages = torch.where(perfect, 0.0, (rewards - mean) / (std + options.eps))
    return torch.where(size == 1, rewards, advantages) if options.singleton == "raw" else advantages


def _within_reach(rewards: Float[Tensor, "n"], r_max: float) -> Float[Tensor, "n"]:
    """The rewards, with r_max itself where a scorer's float32 means it."""
    rewards = torch.where(same_number(rewards, r_max), r_max, rewards)
    if bool((rewards > r_max).any()):
        raise ValueError(
            f"ngrpo compares with a best reward of r_max = {r_max:g}, found a reward of {float(rewards.max()):g}. "
            "Set `r_max` to the largest reward that the scorer can give."
        )
    return rewards
