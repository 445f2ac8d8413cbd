"""ASPO: a bounded shift of the advantage, after normalisation, for correct answers that call a tool early."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.outcomes import correct_samples
from align.advantages.registry import estimator
from align.config.shapers import AspoTool
from align.groups import group_mean
from align.objectives import per_unit


@estimator(AspoTool)
def aspo_tool(inputs: AdvantageInputs, options: AspoTool) -> Float[Tensor, "n *t"]:
    """Shift of the advantage by how early the first tool call is, among correct answers with one.

        A_i <- A_i + clip( delta (p_i - pbar) / Lbar,  -k |A_i|,  +k |A_i| )

        p_i: position of the first tool-call token; pbar, Lbar: means of p and of the length L over the answers of the
        group that are correct and call a tool. All other answers keep their advantage.

    For k < 1 no sign can change. A group whose answers are all correct has A = 0, so nothing happens, and one eligible
    answer is its own mean. Positions count in tokens, so p and L have one unit and delta is a number.

    References:
        "Understanding Tool-Integrated Reasoning" (ASPO), arXiv:2508.19201, equation 2. Defaults: the conservative pair
        delta = -2.0, k = 0.7; the aggressive one is -2.5, 0.9.

    Note:
        The paper's bounds are -k A and k A, the same for correct answers under rewards of 0 and 1, where A >= 0.
        There is no official code. A bonus added to the reward instead is not the same: where all are correct the group
        normalisation turns it into full-size advantages.
    """
    advantages, ids = inputs.tensor("advantages"), inputs.ids
    position, lengths = inputs.tensor("first_tool_pos").double(), inputs.tensor("lengths").double()
    eligible = correct_samples(inputs, options.success_value) & (position >= 0)
    delay = position - group_mean(position, ids, where=eligible)
    shift = options.delta * delay / group_mean(lengths, ids, where=eligible).clamp(min=1.0)
    bound = options.k * advantages.abs()
    shift = torch.where(eligible, shift, 0.0)
    return advantages + per_unit(shift, advantages).clamp(min=-bound, max=bound)
