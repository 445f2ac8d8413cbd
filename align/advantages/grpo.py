"""GRPO: the reward compared with its group, in standard deviations."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import EPS_MODES, group_centred, group_standardised
from align.advantages.registry import estimator
from align.config.declarations import scope_of
from align.config.group_relative import Grpo
from align.groups import group_max, group_mean, group_min, group_rank, group_size


@estimator(Grpo)
def grpo(inputs: AdvantageInputs, options: Grpo) -> Float[Tensor, "n"]:
    """Group z-score.

        A_i = (r_i - m) / (s + eps)        m, s: mean and standard deviation of the sample's group

    The division makes every prompt weigh alike, however far its rewards spread: tiny differences of a continuous scorer
    become full-size advantages. `scale="batch"` divides by the spread of all rewards instead, `"none"` not at all.

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1.2.

    Note:
        The defaults (unbiased, s + 1e-4) are TRL's; other projects use the population form or another eps. Write down
        which. `leave_one_out_std` is NeMo-RL's form: baseline and deviation of the other samples, and no division
        where these are equal, so that [0, 0, 0, 1] gives 1 to the lone success and -0.577 to the others.
    """
    if options.leave_one_out_std:
        return _leave_one_out(inputs, options)
    if options.scale == "none":
        return group_centred(inputs.rewards, inputs.ids)
    return group_standardised(
        inputs.rewards,
        inputs.ids,
        scope=scope_of(options),
        unbiased=options.unbiased,
        eps=options.eps,
        eps_mode=options.eps_mode,
    )


def _leave_one_out(inputs: AdvantageInputs, options: Grpo) -> Float[Tensor, "n"]:
    """(r_i - mean of the others) / (std of the others + eps); undivided where the others are equal or only one."""
    if options.scale != "group":
        raise ValueError(f"`leave_one_out_std` is about the group's deviation, found `scale` {options.scale!r}.")
    rewards, ids = inputs.rewards, inputs.ids
    size = group_size(ids).double()
    centred = group_centred(rewards, ids)
    # Without sample i the squared deviations from the new mean lose n/(n-1) of its own square.
    squares = group_mean(centred.square(), ids) * size - size / (size - 1) * centred.square()
    others = size - 1 - float(options.unbiased)
    variance = squares.clamp(min=0.0) / others.clamp(min=1.0)
    equal = _others_are_equal(rewards, ids) | (others < 1)
    divisor = EPS_MODES[options.eps_mode](variance.sqrt(), options.eps)
    return size / (size - 1) * centred / torch.where(equal, 1.0, divisor)


def _others_are_equal(rewards: Float[Tensor, "n"], ids: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Whether the rewards of a group without the sample itself are one number."""
    rank, size = group_rank(rewards, ids), group_size(ids)
    inner = (rank > 0) & (rank < size - 1)
    lowest, highest = group_min(rewards, ids), group_max(rewards, ids)
    second, last_but_one = group_min(rewards, ids, where=rank > 0), group_max(rewards, ids, where=rank < size - 1)
    return torch.where(inner, lowest == highest, torch.where(rank == 0, second == highest, lowest == last_but_one))
