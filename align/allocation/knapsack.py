"""Knapsack RL: spend rollouts where a mixed group is most worth having. Li et al., arXiv:2509.25849.

    P_nz(N, p) = 1 - p^N - (1 - p)^N            chance that N rollouts are neither all right nor all wrong
    gain(p)    = p (1 - p)^2                    what a mixed group is worth; largest at p = 1/3
    maximise sum_i P_nz(N_i, p_i) gain(p_i)     subject to sum_i N_i = B,  low <= N_i <= high

The value is concave in N (its second difference is -gain [p^N (1-p)^2 + (1-p)^N p^2] <= 0), so giving rollouts one at a
time to the largest marginal value is exact:

    V(N+1, p) - V(N, p) = gain(p) [ p^N (1 - p) + (1 - p)^N p ]

Ours differs from the released code where that is not optimal or breaks its own cap: it scores "no extra rollout" as 0
instead of V(low) in its table, and deals a remainder out above the cap.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Method = Literal["greedy", "exact"]


def knapsack(
    success_rates: Float[Tensor, "p"],
    budget: int,
    *,
    min_rollouts: int = 2,
    max_rollouts: int = 128,
    unknown_rollouts: int | None = None,
    fallback: Literal["none", "confidence", "expectation"] = "none",
    method: Method = "greedy",
) -> Int[Tensor, "p"]:
    """Rollouts per prompt.

    Unknown prompts (NaN) get the uniform share, solved (1) and hopeless (0) ones the minimum, the others the rest by
    value. What nobody can take because of `max_rollouts` goes to hopeless prompts, then to unknown ones, then to nobody
    (with a warning). Without any prompt between 0 and 1 the hopeless ones share the rest; without those, everybody gets
    the uniform share.

    Args:
        success_rates: in [0, 1]; NaN = not known yet.
        budget: B, rollouts in all.
        min_rollouts: of a prompt whose rate is known.
        max_rollouts: of any prompt.
        unknown_rollouts: of a prompt whose rate is not known; None = budget // prompts.
        fallback: hand a surplus over to the hopeless prompts once the others have what they need (`rollouts_needed`);
            the released recipe does. `none` spends it by value.
        method: `greedy`, or `exact`: dynamic programming over the whole table, equal and slower, the oracle of tests.

    Returns:
        int64, summing to the budget unless capped.

    Raises:
        ValueError: rates outside [0, 1], no prompt, limits that contradict each other, or a budget below the minima.
    """
    rates = success_rates.double()
    _check(rates, budget, min_rollouts, max_rollouts)
    effective = (rates > 0) & (rates < 1)
    hopeless, unknown = rates == 0, rates.isnan()
    even = min(unknown_rollouts if unknown_rollouts is not None else budget // len(rates), max_rollouts)
    if not (effective | hopeless).any():
        return _dealt_out(torch.zeros_like(rates).long(), torch.ones_like(effective), budget, max_rollouts)[0]
    counts = torch.where(unknown, even, min_rollouts)
    rest = budget - int(counts.sum())
    if rest < 0:
        raise ValueError(
            f"a budget of {budget} rollouts is too small: {len(rates)} prompts need {int(counts.sum())} "
            f"({min_rollouts} each, {even} where the rate is unknown). Raise the budget or lower `min_rollouts`."
        )
    surplus = 0
    if fallback != "none" and hopeless.any():
        surplus = max(0, rest - int(rollouts_needed(rates[effective], max_rollouts, fallback).sum()))
    counts[effective] += _METHODS[method](rates[effective], rest - surplus, min_rollouts, max_rollouts)
    rest = budget - int(counts.sum())
    for takers in (hopeless, unknown):
        counts, rest = _dealt_out(counts, takers, rest, max_rollouts)
    if rest:
        warnings.warn(f"{rest} of {budget} rollouts are not spent: every prompt has its {max_rollouts}.", stacklevel=2)
    return counts


def mixed_value(rollouts: Int[Tensor, "..."], success_rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """V(N, p) = (1 - p^N - (1 - p)^N) p (1 - p)^2, float64; broadcasts."""
    n, p = rollouts.double(), success_rates.double()
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def rollouts_needed(
    success_rates: Float[Tensor, "p"], max_rollouts: int, mode: str = "confidence"
) -> Float[Tensor, "p"]:
    """Rollouts until a prompt with 0 < p < 1 has a mixed group.

        confidence:   floor(min(max, ln(1 - 0.9) / ln max(p, 1 - p)))         with probability of about 0.9
        expectation:  1/p + 1/(1 - p) - 1 = 1 / (p (1 - p)) - 1               on average

    Args:
        success_rates: above 0 and below 1.
        max_rollouts: cap of the first form.
        mode: `confidence` or `expectation`.
    """
    p = success_rates.double()
    if mode == "confidence":
        return (math.log(1 - 0.9) / torch.maximum(p, 1 - p).log()).clamp(max=max_rollouts).floor()
    if mode == "expectation":
        return 1 / (p * (1 - p)) - 1
    raise ValueError(f"`fallback` must be none, confidence or expectation, found {mode!r}.")


def _marginal(rollouts: int, p: float) -> float:
    """V(N+1, p) - V(N, p)."""
    return p * (1 - p) ** 2 * (p**rollouts * (1 - p) + (1 - p) ** rollouts * p)


def _greedy(rates: Float[Tensor, "p"], extra: int, low: int, high: int) -> Int[Tensor, "p"]:
    """One rollout at a time to the largest marginal value, O(extra log p). Ties go to the first prompt."""
    p = rates.tolist()
    heap = [(-_marginal(low, rate), place) for place, rate in enumerate(p) if low < high]
    heapq.heapify(heap)
    added = [0] * len(p)
    for _ in range(extra):
        if not heap:
            break
        _, place = heapq.heappop(heap)
        added[place] += 1
        if low + added[place] < high:
            heapq.heappush(heap, (-_marginal(low + added[place], p[place]), place))
    return torch.tensor(added, dtype=torch.int64)


def _dynamic(rates: Float[Tensor, "p"], extra: int, low: int, high: int) -> Int[Tensor, "p"]:
    """The textbook table: best value of the first prompts with every possible number of extra rollouts."""
    room = high - low
    extra = min(extra, room * len(rates))
    best = torch.full((extra + 1,), -math.inf, dtype=torch.float64)
    best[0] = 0.0
    choices: list[Tensor] = []
    for rate in rates:
        most = min(room, extra)
        values = mixed_value(torch.arange(low, low + most + 1), rate)
        table = torch.full((most + 1, extra + 1), -math.inf, dtype=torch.float64)
        for count in range(most + 1):
            table[count, count:] = best[: extra + 1 - count] + values[count]
        best, choice = table.max(dim=0)
        choices.append(choice)
    left, added = extra, []
    for choice in reversed(choices):
        added.append(int(choice[left]))
        left -= added[-1]
    return torch.tensor(added[::-1], dtype=torch.int64)


_METHODS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {"greedy": _greedy, "exact": _dynamic}


def _dealt_out(counts: Tensor, takers: Tensor, rest: int, high: int) -> tuple[Int[Tensor, "p"], int]:
    """The rest dealt out evenly, the first prompts one more, nobody above the cap; and what is left over."""
    places = takers.nonzero().flatten()
    counts = counts.clone()
    while rest > 0 and len(places) > 0:
        share, more = divmod(rest, len(places))
        wanted = torch.full((len(places),), share, dtype=torch.int64)
        wanted[:more] += 1
        given = torch.minimum(wanted, high - counts[places])
        counts[places] += given
        rest -= int(given.sum())
        places = places[counts[places] < high]
    return counts, rest


def _check(rates: Tensor, budget: int, low: int, high: int) -> None:
    if len(rates) == 0:
        raise ValueError("there is no prompt to give rollouts to.")
    known = rates[~rates.isnan()]
    if ((known < 0) | (known > 1)).any():
        raise ValueError(
            f"success rates must be between 0 and 1 (NaN = unknown), found {known.min():g} to {known.max():g}. "
            "Turn scores into successes first (a threshold)."
        )
    if not 0 <= low <= high or high < 1:
        raise ValueError(f"expected 0 <= `min_rollouts` <= `max_rollouts` and at least 1, found {low} and {high}.")
    if budget < 1:
        raise ValueError(f"`budget` must be at least 1, found {budget}.")
