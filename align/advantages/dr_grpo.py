"""Dr. GRPO's advantage: GRPO without the division by the standard deviation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.config.group_relative import DrGrpo


@estimator(DrGrpo)
def dr_grpo(inputs: AdvantageInputs, options: DrGrpo) -> Float[Tensor, "n"]:
    """Reward minus the group's mean.

        A_i = r_i - m

    Dividing by the standard deviation weighs prompts that are nearly solved or nearly hopeless more than the others;
    this removes that weight. Advantages keep the unit of the rewards.

    References:
        Liu et al., "Understanding R1-Zero-Like Training", arXiv:2503.20783, section 3.

    Note:
        The paper's second half, dividing the loss by a constant instead of each response's length, is the aggregation
        `seq_mean_token_sum_norm` of `align.objectives.aggregate`. With pictures only the first half matters.
    """
    return group_centred(inputs.rewards, inputs.ids)
