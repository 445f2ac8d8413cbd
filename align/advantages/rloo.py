"""RLOO: the baseline of a sample is the mean reward of the other samples of its prompt."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.config.group_relative import Rloo
from align.groups import group_size


@estimator(Rloo)
def rloo(inputs: AdvantageInputs, options: Rloo) -> Float[Tensor, "n"]:
    """Reward minus the mean reward of the *other* samples of the same prompt.

        A_i = r_i - 1/(n-1) * sum_{j != i} r_j  =  n/(n-1) * (r_i - m)

    The baseline does not depend on sample i, so the policy gradient stays unbiased. Advantages keep the unit of the
    rewards.

    References:
        Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019.
        Ahmadian et al., "Back to Basics", arXiv:2402.14740. Equation number not checked.
    """
    size = group_size(inputs.ids).double()
    return size / (size - 1) * group_centred(inputs.rewards, inputs.ids)  # a group of one is the rules' business
