"""OPO: the baseline that minimises the variance of the gradient weighs each reward by the response's length."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.estimators import Opo
from align.groups import group_mean


def length_weighted_mean(
    values: Float[Tensor, "n"], lengths: Int[Tensor, "n"], group_ids: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """sum_j L_j x_j / sum_j L_j over each sample's group; the plain mean where all lengths are 0."""
    total = group_mean(lengths.double(), group_ids)
    weighted = group_mean(lengths * values, group_ids) / total.clamp(min=1e-300)
    return weighted.where(total > 0, group_mean(values, group_ids))


@estimator(Opo)
def opo(inputs: AdvantageInputs, options: Opo) -> Float[Tensor, "n"]:
    """Reward minus the length-weighted mean of the group.

        A_i = r_i - sum_j L_j r_j / sum_j L_j

    The variance of a policy gradient is least with a baseline that weighs rewards by the squared norm of their
    gradients; taking that norm to grow with the number of tokens gives lengths as weights. Advantages keep the unit of
    the rewards, and sum_i L_i A_i = 0 in each group. With equal lengths (pictures) it is Dr. GRPO.

    References:
        Hao et al., "On-Policy RL with Optimal Reward Baseline", arXiv:2505.23585, the length-weighted baseline.
        Equation number not checked.
    """
    return inputs.rewards - length_weighted_mean(inputs.rewards, inputs.tensor("lengths"), inputs.ids)
