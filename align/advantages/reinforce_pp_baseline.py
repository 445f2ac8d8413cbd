"""REINFORCE++ with a baseline: the reward minus the group's mean, whitened over all tokens of the batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.advantages.whitening import whitened
from align.config.estimators import ReinforcePPBaseline
from align.groups import group_is_constant, group_size


@estimator(ReinforcePPBaseline)
def reinforce_pp_baseline(
    inputs: AdvantageInputs, options: ReinforcePPBaseline
) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """Group-centred reward on every trained position, whitened over the batch.

        c_i = r_i - m        on all trained positions of sample i
        A_t = (c_t - mean) / sqrt(var + 1e-8)        mean and var over all trained positions of the batch

    A group of equal rewards has c = 0 and so gets -mean / std, a small shift common to all such groups; it is exactly 0
    only where the mean over positions is (rule C1 does not apply). Without a `mask` each sample is one position.

    References:
        Hu, "REINFORCE++", arXiv:2501.03262, the variant with a group baseline. Equation number not checked.

    Note:
        A group of one is centred to 0; verl keeps its raw reward, `singleton="raw"`. `standardise=False` is
        OpenRLHF's switch that drops the division and keeps the subtraction of the mean.
    """
    rewards, ids = inputs.rewards, inputs.ids
    centred = torch.where(group_is_constant(rewards, ids), 0.0, group_centred(rewards, ids))
    if options.singleton == "raw":
        centred = torch.where(group_size(ids) == 1, rewards, centred)
    if inputs.mask is None:
        trained = torch.ones_like(centred, dtype=torch.bool)
    else:
        trained = trained_positions(inputs)
        centred = torch.where(trained, centred.unsqueeze(1), 0.0)
    return whitened(centred, trained, unbiased=options.unbiased, eps=options.eps, standardise=options.standardise)
