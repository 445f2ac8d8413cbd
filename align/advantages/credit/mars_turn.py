"""MARS: turn-level advantages for several players, each compared with its own seat.

    R_ik = sum_(j >= k) r_ij            turn rewards of trajectory i from turn k on
    A_ik = R_ik - mean of R over ALL turns of ALL trajectories of the same game and player

Every token of the turn gets A_ik. Summed first and compared afterwards: normalising turn rewards before the sum would
let the advantage grow with the number of turns that are left. First and second movers expect different returns; one
pool would reward the lucky seat. No standard deviation: advantages keep the unit of the rewards.

Turn rewards: `token_rewards` summed over the turn's positions; without them the reward on the last turn. A pool is one
value of `group_ids` (if given: the game), `player`, `role` and `agent` (each if given).

References:
    Yuan et al., "MARS: Reinforcing Multi-Agent Reasoning of LLMs through Self-Play in Strategic Games",
    arXiv:2510.15414. Equation number not checked.

Note:
    The released self-play configuration (`release=True`) differs: turn rewards are centred per pool before the sum,
    token rewards whitened over the batch, the mean of the *distinct* return values of the whole block (padding zeros
    included) subtracted per pool, and the result whitened. Which values are distinct is decided by rounding; ours is
    to 1e-5.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.prefix import first_members
from align.advantages.credit.scan import masked_discounted_scan
from align.advantages.credit.standard import centred, whiten
from align.advantages.credit.units import (
    broadcast,
    last_of_units,
    placed_rewards,
    trained_positions,
    turns_of,
    unit_exists,
    unit_sum,
)
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import MarsTurn
from align.groups import group_mean

ROUNDING = 1e-5  # two returns closer than this are one value in the released form


@estimator(MarsTurn)
def mars_turn(inputs: AdvantageInputs, options: MarsTurn) -> AdvantageResult:
    """Return from a turn on minus its pool's mean."""
    trained = trained_positions(inputs)
    turns = turns_of(inputs, trained)
    exists = unit_exists(turns)
    rewards = unit_sum(placed_rewards(inputs, trained), turns)
    seats = [key for key in (inputs.player, inputs.role, inputs.agent) if key is not None]
    pools = joint_ids(inputs.ids, *seats).unsqueeze(1).expand(rewards.shape)
    if options.release:
        return AdvantageResult(advantages=_released(rewards, pools, exists, turns, trained))
    returns = masked_discounted_scan(rewards, exists, 1.0)
    return AdvantageResult(advantages=broadcast(centred(returns, pools, exists), turns))


def _released(
    rewards: Float[Tensor, "n k"],
    pools: Int[Tensor, "n k"],
    exists: Bool[Tensor, "n k"],
    turns: Int[Tensor, "n t"],
    trained: Bool[Tensor, "n t"],
) -> Float[Tensor, "n t"]:
    """The five steps of the release."""
    last = last_of_units(turns)
    of_turns = torch.where(last >= 0, centred(rewards, pools, exists), 0.0)
    placed = of_turns.new_zeros(turns.shape).scatter_add_(1, last.clamp(min=0), of_turns)
    returns = torch.where(trained, masked_discounted_scan(whiten(placed, trained), trained, 1.0), 0.0)
    of_positions = pools[:, :1].expand(turns.shape)
    rounded = joint_ids(of_positions, (returns / ROUNDING).round().long())
    once = first_members(rounded, torch.ones_like(trained))
    mean = group_mean(returns.flatten(), of_positions.flatten(), once.flatten()).reshape(turns.shape)
    return whiten(returns - mean, trained)
