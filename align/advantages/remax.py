"""ReMax: the baseline is the reward of a greedy rollout of the same prompt."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.estimators import Remax


@estimator(Remax)
def remax(inputs: AdvantageInputs, options: Remax) -> Float[Tensor, "n"]:
    """Reward minus the reward that the policy earns when it does not explore.

        A_i = r_i - r(greedy rollout of the prompt of i)

    One extra rollout per prompt; samples are not compared with each other, so a group of one is enough and equal
    rewards give 0 only where the greedy rollout earns the same. Advantages keep the unit of the rewards.

    References:
        Li et al., "ReMax", arXiv:2310.10505, algorithm 1.
    """
    return inputs.rewards - inputs.tensor("greedy_rewards")
