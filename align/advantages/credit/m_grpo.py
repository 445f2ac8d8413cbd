"""M-GRPO: a main agent and the sub-agents it calls, each compared with its own kind.

    main:  A = (R - mean) / std over the K rollouts of the query
    sub:   rollout k made d_k calls. Align: with fewer than d calls duplicate random ones, with more drop random ones;
           then A = (R - mean) / std over all d K aligned calls of the query
    std:   population form

Every query then has exactly d K calls (of the rollouts that made any): a fixed batch shape for the sub-agent's trainer,
and a rollout that calls often does not outweigh the others.

Rows are rollouts of the main agent (`agent` 0) and calls of sub-agents (`agent` 1, 2, ...); `parent` is one number per
rollout, carried by the rollout and its calls. Without `parent` the rows count as aligned already; without `agent` all
are main rollouts. `aux["copies"]`: how often a row occurs among the aligned ones, 0 = dropped (advantage 0); a token
mean can weigh duplicates by it. `call` numbers the calls of a rollout and makes the draw independent of the order of
rows.

The reward of a picture flows to the model that wrote its prompt (main), and the main agent's success to the picture
model (sub) through the middle term of `sub_reward`.

References:
    Hong et al., "Multi-Agent Deep Research: Training Multi-Agent Systems with M-GRPO", arXiv:2511.13288.
    Equation number not checked.

Note:
    Duplicates are spread evenly (with d = 5 and two calls, 3 and 2), the rest is drawn; the paper draws them all. The
    release aligns nothing: it fills groups of 8 from a queue, across queries. Rollouts without a call add no rows.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.standard import z_score
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import MGrpo
from align.groups import group_size


@estimator(MGrpo)
def m_grpo(inputs: AdvantageInputs, options: MGrpo) -> AdvantageResult:
    """z-scores of main rollouts among themselves and of aligned calls among themselves."""
    rewards = inputs.rewards
    agent = torch.zeros_like(inputs.ids) if inputs.agent is None else inputs.agent
    copies = torch.ones_like(inputs.ids)
    is_call = agent != 0
    if inputs.parent is not None and bool(is_call.any()):
        copies = _aligned(inputs, agent, is_call, options)
    rows = torch.repeat_interleave(torch.arange(len(rewards), device=rewards.device), copies)
    pools = joint_ids(inputs.ids, agent)
    of_copies = z_score(rewards[rows], pools[rows], unbiased=options.unbiased, eps=options.eps)
    advantages = torch.zeros_like(rewards).index_copy_(0, rows, of_copies)  # copies of a row have equal advantages
    return AdvantageResult(
        advantages=advantages,
        aux={"copies": copies},
        stats={
            "calls_dropped": float((copies[is_call] == 0).sum()),
            "calls_duplicated": float((copies[is_call] - 1).clamp(min=0).sum()),
        },
    )


def align_calls(
    units: Int[Tensor, "n"], order: Int[Tensor, "n"], calls: int, generator: torch.Generator
) -> Int[Tensor, "n"]:
    """How often each call is used so that every unit has exactly `calls`.

    Args:
        units: calls of one rollout share a number.
        order: distinct within a unit; the draw depends on (unit, order) and not on the order of rows.
        calls: d >= 1.
        generator: source of the draw.

    Returns:
        Copies per call: with d_k calls in its unit, d // d_k for all, one more for d % d_k drawn ones.
    """
    canonical = torch.argsort(joint_ids(units, order), stable=True)
    lots = torch.empty(len(units), dtype=torch.float64)
    lots[canonical] = torch.rand(len(units), generator=generator, dtype=torch.float64)
    sequence = torch.argsort(lots, stable=True)
    sequence = sequence[torch.argsort(units[sequence], stable=True)]  # by unit, within it by lot
    size = group_size(units)
    place = torch.empty_like(units)
    place[sequence] = _place_in_run(units[sequence])
    return calls // size + (place < calls % size).long()


def main_reward(format_ok: Bool[Tensor, "n"], correct: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The paper's reward of the main agent: 0.1 for the form + 0.9 for the answer; 0 without the form."""
    return torch.where(format_ok, 0.1 + 0.9 * correct.double(), 0.0)


def sub_reward(
    format_ok: Bool[Tensor, "n"], main_correct: Bool[Tensor, "n"], judged: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """The paper's reward of a call: 0.1 form + 0.4 if the main agent was right + 0.5 times a judgement in [0, 1]."""
    return torch.where(format_ok, 0.1 + 0.4 * main_correct.double() + 0.5 * judged.double(), 0.0)


def _aligned(inputs: AdvantageInputs, agent: Tensor, is_call: Bool[Tensor, "n"], options: MGrpo) -> Int[Tensor, "n"]:
    """Copies of each row: 1 for main rollouts, the outcome of the alignment for calls."""
    units = joint_ids(inputs.ids, inputs.tensor("parent"), agent)
    order = torch.arange(len(units), device=units.device) if inputs.call is None else inputs.call
    calls = options.calls or _covering(group_size(units)[is_call], units[is_call], agent, options.coverage)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + (inputs.step or 0))
    copies = torch.ones_like(units)
    copies[is_call] = align_calls(units[is_call].cpu(), order[is_call].cpu(), calls, generator).to(units.device)
    return copies


def _covering(sizes: Tensor, units: Tensor, agent: Tensor, coverage: float) -> int:
    """Smallest d >= 1 with d_k <= d for this share of the (rollout, sub-agent) pairs, those without a call included."""
    distinct, first = torch.unique(units, return_inverse=True)
    counts = torch.zeros(len(distinct), dtype=torch.long, device=units.device).index_copy_(0, first, sizes)
    pairs = int((agent == 0).sum()) * len(agent[agent != 0].unique())
    silent = torch.zeros(max(pairs - len(distinct), 0), dtype=torch.long, device=units.device)
    ranked = torch.cat([silent, counts.sort().values])
    return max(int(ranked[max(math.ceil(coverage * len(ranked)) - 1, 0)]), 1)


def _place_in_run(sorted_units: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """0, 1, ... within each run of equal numbers."""
    places = torch.arange(len(sorted_units))
    begins = torch.cat([torch.ones(1, dtype=torch.bool), sorted_units[1:] != sorted_units[:-1]])
    return places - torch.where(begins, places, 0).cummax(dim=0).values
