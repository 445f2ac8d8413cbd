"""PURE: a chain of reasoning steps is worth its worst step.

Summing the scores of a process reward model rewards many mildly good steps, and is soon exploited. PURE takes the
minimum. With step scores r_1 .. r_n of one rollout and w the worst step, the return of step t is r_w for t <= w and 0
behind it: a later step can no longer change the minimum. In training it is softened so that any return-based method can
sum it:

    r*_i = softmax(-r / T)_i r_i,        G_t = sum_(j >= t) r*_j           T = 0.1
    b_i  = (sum over the other rollouts of their returns over all tokens) / ((K - 1) N_max)
    A_it = G_it - b_i  +  coef * (outcome_i - mean outcome of the others)

Scores: any unit, the paper's lie in [-1, 1]; they stand in `token_rewards` at `step_end`, the verifiable outcome in
`rewards`. A rollout without a step end is one step, closed by its last trained position.

References:
    Cheng et al., "Stop Summation: Min-Form Credit Assignment Is All Process Reward Model Needs for Reasoning",
    arXiv:2504.15275, the min-form and its soft minimum. Equation number not checked.

Note:
    Released code (`release`). `main_token`, `main_step`: subtract baselines from the step rewards before summing: per
    token of the step, beta_i = (others' total r*) / (others' total length), or per step, the mean of the others' r* per
    step; and the token that carries a step's score gets 0. `verl`: the outcome is summed with the step rewards, shares
    their baseline, and everything is whitened over the batch. The release's strict minimum over all token rewards,
    padding included, is not offered; `form="exact"` is the paper's minimum over steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.scan import masked_discounted_scan
from align.advantages.credit.standard import whiten
from align.advantages.credit.units import (
    at_last,
    last_of_units,
    trained_positions,
    unit_exists,
    unit_sum,
    units_from_ends,
)
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.advantages.rloo import rloo
from align.config.credit import PureMin
from align.config.group_relative import Rloo
from align.groups import group_mean, group_size


@dataclass(frozen=True)
class Chains:
    """Rollouts as chains of scored steps."""

    inputs: AdvantageInputs
    options: PureMin
    trained: Bool[Tensor, "n t"]
    steps: Int[Tensor, "n t"]
    rewards: Float[Tensor, "n k"]  # r*, 0 for a step that does not exist

    @property
    def placed(self) -> Float[Tensor, "n t"]:
        """r* on the last position of its step."""
        return self.at_ends(self.rewards)

    def at_ends(self, of_steps: Float[Tensor, "n k"]) -> Float[Tensor, "n t"]:
        """A step's number on its last position."""
        last = last_of_units(self.steps)
        placed = of_steps.new_zeros(self.steps.shape)
        return placed.scatter_add_(1, last.clamp(min=0), torch.where(last >= 0, of_steps, 0.0))

    def mean_of_others(self, per_rollout: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Mean over the other rollouts of the prompt."""
        size = group_size(self.inputs.ids).double()
        return (size * group_mean(per_rollout, self.inputs.ids) - per_rollout) / (size - 1)


@estimator(PureMin)
def pure_min(inputs: AdvantageInputs, options: PureMin) -> AdvantageResult:
    """Min-form returns minus a baseline, plus the outcome's leave-one-out advantage.

    `aux["returns"]`: G before the baseline.
    """
    trained, ends = trained_positions(inputs), inputs.tensor("step_end")
    steps = units_from_ends(ends, trained)
    rewards = FORMS[options.form](
        unit_sum(inputs.tensor("token_rewards"), steps), unit_exists(steps), options.temperature
    )
    chains = Chains(inputs, options, trained, steps, rewards)
    unmarked = ~(ends & trained).any(dim=1)
    return AdvantageResult(
        advantages=torch.where(trained, RELEASES[options.release](chains), 0.0),
        aux={"returns": suffix_sum(chains.placed, trained)},
        stats={"without_step_end": float(unmarked.sum())},
    )


def soft_minimum(scores: Float[Tensor, "n k"], exists: Bool[Tensor, "n k"], temperature: float) -> Float[Tensor, "n k"]:
    """r*_i = softmax(-r / T)_i r_i over the steps of a row; sums to a number between the minimum and the mean."""
    weights = torch.where(exists, -scores / temperature, -torch.inf).softmax(dim=1)
    return torch.where(exists, weights * scores, 0.0)


def exact_minimum(
    scores: Float[Tensor, "n k"], exists: Bool[Tensor, "n k"], temperature: float
) -> Float[Tensor, "n k"]:
    """The worst step keeps its score (the first of equals), the others get 0: the soft minimum at T = 0."""
    worst = torch.where(exists, scores, torch.inf).argmin(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter_(1, worst, scores.gather(1, worst))


def mean_form(scores: Float[Tensor, "n k"], exists: Bool[Tensor, "n k"], temperature: float) -> Float[Tensor, "n k"]:
    """r_i / n: the soft minimum at T = infinity."""
    return torch.where(exists, scores, 0.0) / exists.sum(dim=1, keepdim=True)


def suffix_sum(placed: Float[Tensor, "n t"], trained: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Undiscounted return of every trained position."""
    return torch.where(trained, masked_discounted_scan(placed, trained, 1.0), 0.0)


def _paper(chains: Chains) -> Float[Tensor, "n t"]:
    returns = suffix_sum(chains.placed, chains.trained)
    advantages = returns - _token_baseline(chains, returns).unsqueeze(1)
    return advantages + chains.options.outcome_coef * _outcome(chains).unsqueeze(1)


def _verl(chains: Chains) -> Float[Tensor, "n t"]:
    outcome = at_last(chains.inputs.rewards, chains.trained)
    returns = suffix_sum(chains.placed + chains.options.outcome_coef * outcome, chains.trained)
    compared = chains.trained & (group_size(chains.inputs.ids) > 1).unsqueeze(1)  # a lone rollout has no baseline
    return whiten(returns - _token_baseline(chains, returns).unsqueeze(1), compared)


def _main_token(chains: Chains) -> Float[Tensor, "n t"]:
    lengths = chains.trained.sum(dim=1).double()
    others = chains.mean_of_others(chains.rewards.sum(dim=1)) / chains.mean_of_others(lengths)
    tokens = unit_sum(chains.trained.double(), chains.steps)
    return _main(chains, chains.rewards - others.unsqueeze(1) * tokens)


def _main_step(chains: Chains) -> Float[Tensor, "n t"]:
    per_step = chains.rewards.sum(dim=1) / unit_exists(chains.steps).sum(dim=1)
    return _main(chains, chains.rewards - chains.mean_of_others(per_step).unsqueeze(1))


def _main(chains: Chains, of_steps: Float[Tensor, "n k"]) -> Float[Tensor, "n t"]:
    """Sum the baselined step rewards and the outcome; the token that carries a step's score gets nothing."""
    placed = chains.at_ends(of_steps) + at_last(chains.options.outcome_coef * _outcome(chains), chains.trained)
    return torch.where(chains.inputs.tensor("step_end"), 0.0, suffix_sum(placed, chains.trained))


def _outcome(chains: Chains) -> Float[Tensor, "n"]:
    """Outcome minus the mean outcome of the other rollouts."""
    return rloo(chains.inputs, Rloo())


def _token_baseline(chains: Chains, returns: Float[Tensor, "n t"]) -> Float[Tensor, "n"]:
    """Mean over the other rollouts of their returns summed over tokens, per token of the longest answer."""
    longest = chains.options.max_length or int(chains.trained.sum(dim=1).max())
    return chains.mean_of_others(returns.sum(dim=1)) / longest


FORMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "soft": soft_minimum,
    "exact": exact_minimum,
    "mean": mean_form,
}
RELEASES: dict[str, Callable[[Chains], Tensor]] = {
    "none": _paper,
    "main_token": _main_token,
    "main_step": _main_step,
    "verl": _verl,
}
