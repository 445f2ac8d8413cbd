"""Groups of scored samples -> preference pairs. Pure; NaN = not scored, never chosen or rejected.

A pair is never made of equal scores: a margin of 0 is no preference. Weights that depend on the prompt come first
(`align.shaping.combine`), because they can change who wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import check_ids, group_codes
from align.shaping.combine import weighted_sum
from align.shaping.pareto import dominates
from align.shaping.weights import check_prompt_weights


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Preference pairs as positions in the samples that they were made of.

    Attributes:
        chosen: position of the better sample.
        rejected: position of the worse one.
        margin: difference of their scores, > 0, in the unit of the scores.
    """

    chosen: Int[Tensor, "m"]
    rejected: Int[Tensor, "m"]
    margin: Float[Tensor, "m"]

    def __len__(self) -> int:
        return len(self.chosen)


def best_and_worst(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, min_margin: float = 0.0) -> Pairs:
    """One pair per group: its best and its worst sample. Ties go to the lowest position.

    Args:
        scores: higher is better; NaN is left out.
        group_ids: equal ids answer the same prompt.
        min_margin: pairs with a smaller margin are dropped; equal scores always are.

    Returns:
        At most one pair per group, in the order of the group ids.
    """
    _check(scores, group_ids, min_margin)
    codes, groups = group_codes(group_ids)
    scored = ~scores.isnan()
    best = _first_of(torch.where(scored, scores.double(), float("-inf")), codes, groups, scored, "amax")
    worst = _first_of(torch.where(scored, scores.double(), float("inf")), codes, groups, scored, "amin")
    both = best < len(scores)
    return _kept(scores, best[both], worst[both], min_margin)


def all_pairs(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, min_margin: float = 0.0) -> Pairs:
    """Every two samples of a group whose scores differ by the margin or more, better one chosen.

    Args:
        scores: higher is better; NaN is left out.
        group_ids: equal ids answer the same prompt.
        min_margin: smallest margin; equal scores never make a pair.

    Returns:
        Sorted by group, then by position of the chosen and of the rejected.
    """
    _check(scores, group_ids, min_margin)
    chosen, rejected = _within_groups(group_ids)
    better = scores[chosen] > scores[rejected]
    return _kept(scores, chosen[better], rejected[better], min_margin)


def pairs_by_prompt_weights(
    rewards: Float[Tensor, "n k"],
    weights: Float[Tensor, "n k"],
    group_ids: Int[Tensor, "n"],
    *,
    make: Callable[..., Pairs] = best_and_worst,
    min_margin: float = 0.0,
) -> Pairs:
    """Pairs whose margins are weighed by their prompt: of two samples of prompt x,

        m_ij(x) = sum_k w_k(x) (r_ik - r_jk) = S_i - S_j,   S_i = sum_k w_k(x) r_ik

    so the weights decide who wins. They come from a preference adapter (`PromptWeigher.weights_for`), for example.

    Args:
        rewards: on a common scale, higher = better; a sample without a reward that its prompt weighs makes no pair.
        weights: of each sample's prompt, the same for all its samples.
        group_ids: equal ids answer the same prompt.
        make: `best_and_worst` or `all_pairs`.
        min_margin: smallest weighted margin; equal scores never make a pair.

    Raises:
        ValueError: weights that differ within a prompt, are missing or negative.
    """
    if weights.shape != rewards.shape:
        raise ValueError(f"expected a weight for each reward {list(rewards.shape)}, found {list(weights.shape)}.")
    check_prompt_weights(weights, group_ids)
    return make(weighted_sum(rewards.double(), weights.double()), group_ids, min_margin=min_margin)


def dominating_pairs(points: Float[Tensor, "n k"], group_ids: Int[Tensor, "n"]) -> Pairs:
    """Every two samples of a group of which one is at least as good in every reward and better in one.

    No weights are needed: nobody's preferences turn such a pair round. Samples that trade one reward for another make
    no pair.

    Args:
        points: rewards, each higher = better; a sample with a NaN makes no pair.
        group_ids: equal ids answer the same prompt.

    Returns:
        Pairs; the margin is the sum of the differences (> 0), in mixed units: only its sign is meaningful unless the
        rewards share one.
    """
    if points.ndim != 2:
        raise ValueError(f"expected rewards of shape [n, k], found {list(points.shape)}.")
    _check(points[:, 0], group_ids, 0.0)
    chosen, rejected = _within_groups(group_ids)
    wins = dominates(points[chosen], points[rejected])
    chosen, rejected = chosen[wins], rejected[wins]
    margin = (points[chosen].double() - points[rejected].double()).sum(dim=1)
    return Pairs(chosen=chosen, rejected=rejected, margin=margin.to(points.dtype))


def _first_of(values: Tensor, codes: Tensor, groups: int, scored: Tensor, reduce: str) -> Int[Tensor, "g"]:
    """Lowest position of the extreme value of each group; n for a group without a score."""
    extreme = torch.full((groups,), float("-inf" if reduce == "amax" else "inf"), dtype=torch.float64)
    extreme = extreme.scatter_reduce(0, codes, values, reduce)
    hits = (scored & (values == extreme[codes])).nonzero().flatten()
    return torch.full((groups,), len(values)).scatter_reduce(0, codes[hits], hits, "amin")


def _within_groups(group_ids: Int[Tensor, "n"]) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """Positions of all ordered pairs of different samples of a group."""
    codes, groups = group_codes(group_ids)
    members = torch.split(codes.argsort(stable=True), torch.bincount(codes, minlength=groups).tolist())
    squares = [torch.cartesian_prod(rows, rows).reshape(-1, 2) for rows in members]
    table = torch.cat(squares) if squares else torch.zeros(0, 2, dtype=torch.int64)
    table = table[table[:, 0] != table[:, 1]]
    return table[:, 0], table[:, 1]


def _kept(scores: Tensor, chosen: Tensor, rejected: Tensor, min_margin: float) -> Pairs:
    margin = scores[chosen] - scores[rejected]
    keep = (margin > 0) & (margin >= min_margin)
    return Pairs(chosen=chosen[keep], rejected=rejected[keep], margin=margin[keep])


def _check(scores: Tensor, group_ids: Tensor, min_margin: float) -> None:
    check_ids(group_ids)
    if scores.shape != group_ids.shape:
        raise ValueError(f"expected one group id per score, found {list(scores.shape)} and {list(group_ids.shape)}.")
    if not min_margin >= 0:
        raise ValueError(f"`min_margin` must not be negative, found {min_margin}.")
