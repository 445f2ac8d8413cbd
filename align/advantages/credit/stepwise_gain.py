"""Stepwise gain: a denoising step is worth what it added to the reward of the picture that the state implies.

RECONSTRUCTION from the paper's abstract and figure; no code was found. Equation number not checked.

    g_k = R_k - R_(k-1)                                     R_k: reward of the clean image implied after k trained steps
    A_k = (g_k - mean of the pool) / (std of the pool + eps)

The pool is the prompt's group at step k, or (`pools: joint`) at all trained steps together. Per step, a step in which
pictures gain much on average (the early ones) gets no more weight than the others; jointly, it does. Gains telescope:
their sum over the steps is R_T - R_0, so nothing is counted twice.

A pool whose gains are all equal gives exactly 0. Equal final rewards do not: two ways to one reward differ on the way.
A sample with an unscored image anywhere on its way leaves every statistic and gets 0. Where steps between two trained
ones are not trained, `done_reward_seq` decides what they add to whom; for pictures it is the later of the two
(`diffusion/implied.py`).

References:
    "Stepwise-Flow-GRPO", arXiv:2603.28718, abstract and figure; its divisor and eps are not known, here they are those
    of GRPO and Flow-GRPO. Equation number not checked.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.credit.standard import z_score
from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.trees import StepwiseGain


@estimator(StepwiseGain)
def stepwise_gain(inputs: AdvantageInputs, options: StepwiseGain) -> Float[Tensor, "n t"]:
    """z-score of each step's gain within its pool."""
    trained = trained_positions(inputs)
    gains = inputs.tensor("done_reward_seq").diff(dim=1)
    pools = _pools(inputs.ids, gains.shape[1], joint=options.pools == "joint")
    return z_score(gains, pools, trained, unbiased=options.unbiased, eps=options.eps)


def _pools(ids: Int[Tensor, "n"], steps: int, *, joint: bool) -> Int[Tensor, "n t"]:
    """Gains with equal numbers are compared: those of a group, or of a group and a step."""
    columns = torch.zeros(steps) if joint else torch.arange(steps)
    return ids.unsqueeze(1) * steps + columns.long().to(ids.device)
