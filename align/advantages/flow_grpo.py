"""Flow-GRPO's advantage as released, which AWM uses too: mean of the group, standard deviation of all pictures."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_standardised
from align.advantages.registry import estimator
from align.config.declarations import scope_of
from align.config.group_relative import FlowGrpo


@estimator(FlowGrpo)
def flow_grpo(inputs: AdvantageInputs, options: FlowGrpo) -> Float[Tensor, "n"]:
    """Group-centred reward over the population standard deviation of the whole batch.

        A_i = (r_i - m_group) / (s_batch + eps)

    Scores of pictures are continuous, so a group of near-twins has a tiny spread of its own; dividing by it would
    turn scorer noise into full-size advantages. The batch's spread is the same yardstick for every prompt.

    References:
        Liu et al., "Flow-GRPO", arXiv:2505.05470, the group-relative advantage. Equation number not checked.

    Note:
        The paper's formula divides by the group's standard deviation (`global_std=False`); every released
        configuration of Flow-GRPO and AWM divides by the batch's. Both use the population form and add 1e-4.
    """
    return group_standardised(
        inputs.rewards,
        inputs.ids,
        scope=scope_of(options),
        unbiased=options.unbiased,
        eps=options.eps,
        eps_mode=options.eps_mode,
    )
