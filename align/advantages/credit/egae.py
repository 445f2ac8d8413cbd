"""GAE for rollouts that were cut off: T-PPO's extended GAE.

Generation runs in windows of fixed length; every update uses all rollouts, finished or not. For a truncated one the
value is taken to stay what it was,

    V(s_l) := V(s_(l-1)),      A_t = sum_k (gamma lambda)^k delta_(t+k)

which is ordinary GAE with gamma * V_last added to the last reward. Treating the cut as an end (V = 0) would punish
being cut: the last delta would be -V.

References:
    Fan et al., "Truncated Proximal Policy Optimization", arXiv:2506.15050, the EGAE equation.
    Equation number not checked.

Note:
    Which early positions of a long unfinished answer the paper drops from the policy loss could not be read. The
    default here, positions of the present window as given in `policy_window_mask` (all if it is not given), is a
    reconstruction. `bootstrap="given"` uses `bootstrap_values`, the critic's value of the state behind the last
    position (standard n-step), or without a critic the reward of the predicted clean picture.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.credit.gae import gae_result
from align.advantages.credit.units import last_position, trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import Egae


@estimator(Egae)
def egae(inputs: AdvantageInputs, options: Egae) -> AdvantageResult:
    """GAE with a value behind the last position of truncated rollouts.

    `aux["returns"]`: the critic's targets; `aux["value_mask"]`: 1 where the critic may learn them, finished rollouts
    only.
    """
    trained, truncated = trained_positions(inputs), inputs.tensor("truncated")
    after = torch.where(truncated, _behind_the_cut(inputs, options, trained), 0.0)
    result = gae_result(inputs, options, after)
    finished = trained & ~truncated.unsqueeze(1)
    window = trained if inputs.policy_window_mask is None else trained & (inputs.policy_window_mask != 0)
    return AdvantageResult(
        advantages=torch.where(window, result.advantages, 0.0),
        aux={**result.aux, "value_mask": finished.double()},
        stats={"truncated": float(truncated.double().mean())},
    )


def _behind_the_cut(inputs: AdvantageInputs, options: Egae, trained: Bool[Tensor, "n t"]) -> Float[Tensor, "n"]:
    if options.bootstrap == "last":
        return inputs.tensor("values").gather(1, last_position(trained).unsqueeze(1)).squeeze(1)
    return inputs.tensor("bootstrap_values")
