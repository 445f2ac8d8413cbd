"""Discounted returns: the reward from a position on, without a baseline.

    G_t = sum_(k >= t) gamma^d(t, k) r_k

Public trainers disagree on what d counts where a rollout has holes (a tool's answer between two turns), so it is an
option. With gamma = 1 the first two agree.

    valid_only     trained positions between t and k: the default
    per_position   all positions, also the gaps (OpenRLHF)
    per_turn       contiguous runs of trained positions: gamma once per run, the reward read at the run's last position
                   only, one number for the whole run (ROLL's agentic REINFORCE)
    reset          trained positions, but the sum starts again at every gap: credit never crosses a tool's answer (older
                   verl); for parity

References:
    Williams, "Simple Statistical Gradient-Following Algorithms", 1992. The clocks are those of released code.
    Equation number not checked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.credit.scan import masked_discounted_scan, restarting_scan
from align.advantages.credit.standard import whiten
from align.advantages.credit.units import (
    broadcast,
    last_of_units,
    placed_rewards,
    runs,
    trained_positions,
)
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import Returns


@estimator(Returns)
def returns(inputs: AdvantageInputs, options: Returns) -> AdvantageResult:
    """Returns as advantages; `aux["returns"]` holds them before whitening."""
    trained = trained_positions(inputs)
    sums = CLOCKS[options.discount](placed_rewards(inputs, trained), trained, options.gamma)
    sums = torch.where(trained, sums, 0.0)
    return AdvantageResult(advantages=whiten(sums, trained) if options.whiten else sums, aux={"returns": sums})


def per_turn_returns(rewards: Float[Tensor, "n t"], trained: Bool[Tensor, "n t"], gamma: float) -> Float[Tensor, "n t"]:
    """One return per contiguous run of trained positions, from the rewards at the runs' last positions."""
    turns = runs(trained)
    last = last_of_units(turns)
    of_turns = torch.where(last >= 0, rewards.gather(1, last.clamp(min=0)), 0.0)
    return broadcast(masked_discounted_scan(of_turns, last >= 0, gamma), turns)


def per_position_returns(
    rewards: Float[Tensor, "n t"], trained: Bool[Tensor, "n t"], gamma: float
) -> Float[Tensor, "n t"]:
    """Every position discounts, trained or not."""
    return masked_discounted_scan(rewards, torch.ones_like(trained), gamma)


CLOCKS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "valid_only": masked_discounted_scan,
    "per_position": per_position_returns,
    "per_turn": per_turn_returns,
    "reset": restarting_scan,
}
