"""Generalised advantage estimation over the trained positions of a row.

Over the trained positions t_1 < ... < t_L, holes skipped:

    delta_k = r_k + gamma V_(k+1) - V_k                V_(L+1) = value behind the end (0 for a finished rollout)
    A_k     = delta_k + gamma lambda A_(k+1)
    R_k     = A_k + V_k                                the critic's target

A tool's answer in the middle is skipped: the value before it is compared with the value behind it. Setting V = 0 at
masked positions instead, as some trainers do, changes delta at every turn boundary.

References:
    Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv:1506.02438,
    equations 11-16. Decoupled lambda and length-adaptive lambda: VC-PPO, arXiv:2503.01491; VAPO, arXiv:2504.05118.

Note:
    Trainers whiten the result over the batch; that is `whiten=True` here (unbiased variance + 1e-8, as verl).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.credit.scan import masked_discounted_scan, next_true
from align.advantages.credit.standard import whiten
from align.advantages.credit.units import placed_rewards, trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import Egae, Gae


@estimator(Gae)
def gae(inputs: AdvantageInputs, options: Gae) -> AdvantageResult:
    """GAE of finished rollouts. `token_rewards` if given, else the reward on the last trained position."""
    return gae_result(inputs, options, torch.zeros_like(inputs.rewards))


def gae_result(inputs: AdvantageInputs, options: Gae | Egae, after: Float[Tensor, "n"]) -> AdvantageResult:
    """Advantages and the critic's targets (`aux["returns"]`), given the values behind the last positions."""
    trained = trained_positions(inputs)
    values = torch.where(trained, inputs.tensor("values"), 0.0)
    deltas = temporal_differences(values, placed_rewards(inputs, trained), trained, after, options.gamma)
    advantages = masked_discounted_scan(deltas, trained, options.gamma * _lam(options, trained))
    lam_value = options.lam if options.lam_value is None else options.lam_value
    targets = masked_discounted_scan(deltas, trained, options.gamma * lam_value) + values
    return AdvantageResult(
        advantages=whiten(advantages, trained) if options.whiten else advantages,
        aux={"returns": torch.where(trained, targets, 0.0)},
    )


def temporal_differences(
    values: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n t"],
    trained: Bool[Tensor, "n t"],
    after: Float[Tensor, "n"],
    gamma: float,
) -> Float[Tensor, "n t"]:
    """r + gamma V' - V, where V' is the value at the next trained position, or `after` behind the last one."""
    padded = torch.cat([values, after.unsqueeze(1)], dim=1)  # `next_true` points here where nothing follows
    return rewards + gamma * padded.gather(1, next_true(trained)) - values


def _lam(options: Gae | Egae, trained: Bool[Tensor, "n t"]) -> float | Float[Tensor, "n"]:
    """Lambda of the policy: constant, or 1 - 1 / (alpha * length) of each rollout."""
    if options.length_alpha is None:
        return options.lam
    lengths = trained.sum(dim=1).double()
    return 1 - 1 / (options.length_alpha * lengths).clamp(min=1)
