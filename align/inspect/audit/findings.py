"""From scored samples to an audit: every number of `measures.py`, and a plain sentence where one asks for action."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import scoped_ids
from align.inspect.audit import prompt_weights
from align.inspect.audit.measures import (
    Conflict,
    Noise,
    Saturation,
    conflict,
    correlation,
    noise,
    rank_correlation,
    saturation,
    spread_within,
    variance_inflation,
)
from align.inspect.audit.prompt_weights import PromptWeighing
from align.inspect.audit.rows import ScoredRows
from align.report.tables import share

CONSTANT = 0.5  # share of the prompts on which a reward says nothing
AT_END = 0.3  # share of the samples at the smallest or largest score
NOISY = 0.25  # share of the variance within a prompt that a second scoring does not repeat
INFLATED = 5.0  # four fifths of a reward are in the others
OPPOSED = 0.6  # of the pairs that two rewards decide
BIASED = 0.5  # rank correlation with something that no reward should be about
THE_SAME = 0.995  # rank correlation from which a reward *is* that thing, on purpose
SMALL, LARGE = 0.05, 0.9  # share of the score
ENOUGH = 30  # samples beyond one a prompt, below which a correlation is not worth a sentence


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two columns: within prompts and overall, by value and by rank."""

    within: float
    within_rank: float
    overall: float
    overall_rank: float


@dataclass(frozen=True, kw_only=True)
class RewardAudit:
    """One reward.

    Attributes:
        weight: in the score, 0 for a metric.
        mean: over the scored samples.
        spread: standard deviation within a prompt.
        saturation: where it has no room left.
        inflation: variance inflation factor among the weighted rewards; NaN for a metric.
        share: of the score's variance within a prompt; NaN where the score is no sum.
        noise: from a second scoring; None without one.
        biases: feature -> how the reward goes with it.
    """

    name: str
    weight: float
    mean: float
    spread: float
    saturation: Saturation
    inflation: float
    share: float
    noise: Noise | None
    biases: Mapping[str, Agreement]


@dataclass(frozen=True, kw_only=True)
class PairAudit:
    """Two rewards."""

    first: str
    second: str
    agreement: Agreement
    conflict: Conflict


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything about a set of scored samples.

    Attributes:
        source: what was looked at.
        samples: how many.
        prompts: how many different ones.
        compared: samples beyond the first of each prompt: what numbers within prompts rest on.
        weighing: what a preference adapter makes of the prompts; None where weights do not follow from prompts.
    """

    source: str
    samples: int
    prompts: int
    compared: int
    rewards: Sequence[RewardAudit]
    pairs: Sequence[PairAudit]
    findings: Sequence[str] = ()
    weighing: PromptWeighing | None = None

    def as_json(self) -> dict[str, Any]:
        """Nested plain data; tuples with names become objects."""
        return {
            "source": self.source,
            "samples": self.samples,
            "prompts": self.prompts,
            "compared": self.compared,
            "rewards": [
                {
                    **asdict(one),
                    "saturation": one.saturation._asdict(),
                    "noise": None if one.noise is None else one.noise._asdict(),
                }
                for one in self.rewards
            ],
            "pairs": [{**asdict(one), "conflict": one.conflict._asdict()} for one in self.pairs],
            "prompt_weights": None if self.weighing is None else self.weighing.as_json(),
        }


def audit(
    rows: ScoredRows,
    weights: Float[Tensor, "k"],
    shares: Float[Tensor, "k"] | None,
    weighing: PromptWeighing | None = None,
) -> Audit:
    """Measure everything.

    Args:
        rows: scored samples.
        weights: of each reward in the score; 0 marks a metric.
        shares: of each reward in the score's variance; None where the score is no sum.
        weighing: what an adapter makes of the prompts; None without one.
    """
    inflation = torch.full_like(weights, float("nan"), dtype=torch.float64)
    weighted = (weights != 0).nonzero().flatten()
    inflation[weighted] = variance_inflation(rows.values[:, weighted], rows.group_ids)
    rewards = [
        RewardAudit(
            name=name,
            weight=float(weights[k]),
            mean=float(rows.values[:, k].nanmean()),
            spread=spread_within(rows.values[:, k], rows.group_ids),
            saturation=saturation(rows.values[:, k], rows.group_ids),
            inflation=float(inflation[k]),
            share=math.nan if shares is None else float(shares[k]),
            noise=None if rows.again is None else noise(rows.values[:, k], rows.again[:, k], rows.group_ids),
            biases={
                feature: agreement(rows.values[:, k], values, rows.group_ids)
                for feature, values in rows.features.items()
            },
        )
        for k, name in enumerate(rows.names)
    ]
    pairs = [
        PairAudit(
            first=rows.names[a],
            second=rows.names[b],
            agreement=agreement(rows.values[:, a], rows.values[:, b], rows.group_ids),
            conflict=conflict(rows.values[:, a], rows.values[:, b], rows.group_ids),
        )
        for a, b in combinations(range(len(rows.names)), 2)
    ]
    prompts = len(rows.group_ids.unique())
    found = Audit(
        source=rows.source,
        samples=len(rows),
        prompts=prompts,
        compared=len(rows) - prompts,
        rewards=rewards,
        pairs=pairs,
        weighing=weighing,
    )
    return replace(found, findings=tuple(says(found)))


def agreement(first: Float[Tensor, "n"], second: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Agreement:
    """All four correlations of two columns."""
    everything = scoped_ids(group_ids, "batch")
    return Agreement(
        within=correlation(first, second, group_ids),
        within_rank=rank_correlation(first, second, group_ids),
        overall=correlation(first, second, everything),
        overall_rank=rank_correlation(first, second, everything),
    )


def says(found: Audit) -> Iterator[str]:
    """What to do about what is trained on, one sentence each; nothing where nothing stands out."""
    if found.weighing is not None:
        yield from prompt_weights.says(found.weighing)
    if found.compared == 0:
        yield (
            "Every prompt has one sample, so nothing can be said about differences within a prompt, which is what "
            "training compares: score several samples of each prompt."
        )
    elif found.compared < ENOUGH:
        yield (
            f"There are only {found.compared} samples beyond the first of each prompt: correlations are too uncertain "
            "for advice; score more samples of each prompt."
        )
    enough = found.compared >= ENOUGH
    for one in (one for one in found.rewards if one.weight != 0):
        yield from _about_values(one)
        yield from _about_noise(one)
        if enough:
            yield from _about_biases(one)
    yield from _about_the_score(found.rewards)
    weighted = {one.name for one in found.rewards if one.weight != 0}
    pairs = [pair for pair in found.pairs if {pair.first, pair.second} <= weighted]
    if enough:
        for one in found.rewards:
            yield from _about_double_counting(one, pairs)
        for pair in pairs:
            yield from _about_conflict(pair)


def _about_values(one: RewardAudit) -> Iterator[str]:
    ends, name = one.saturation, f"`{one.name}`"
    if ends.unscored == 1:
        yield f"{name} has scored nothing: repair the scorer, or leave it out."
        return
    if ends.unscored > 0:
        yield f"{name} has no score for {share(ends.unscored)} of the samples: find out why before you train on it."
    if ends.constant_groups >= CONSTANT:
        yield (
            f"{name} is constant on {share(ends.constant_groups)} of the prompts, which teach nothing through it: "
            "make it finer, draw more samples of a prompt, or choose prompts on which it varies."
        )
    elif ends.at_max >= AT_END:
        yield (
            f"{name} is at its largest value on {share(ends.at_max)} of the samples, so there is little left to gain: "
            "choose harder prompts, or keep it as a constraint instead of a goal."
        )
    elif ends.at_min >= AT_END:
        yield (
            f"{name} is at its smallest value on {share(ends.at_min)} of the samples and does not see how near they "
            "are: give partial credit, or begin with easier prompts."
        )


def _about_noise(one: RewardAudit) -> Iterator[str]:
    if one.noise is not None and one.noise.share >= NOISY:
        yield (
            f"{share(one.noise.share)} of the variance of `{one.name}` within a prompt is chance (scored twice, it "
            f"moves by {one.noise.sd:.3g}; its spread is {one.noise.spread:.3g}): average several scorings, or lower "
            "its weight."
        )


def _about_biases(one: RewardAudit) -> Iterator[str]:
    for feature, found in one.biases.items():
        if BIASED <= abs(found.within_rank) < THE_SAME:
            way = "rises" if found.within_rank > 0 else "falls"
            yield (
                f"`{one.name}` {way} with {feature.replace('_', ' ')} (rank correlation {found.within_rank:+.2f} "
                "within a prompt), so the policy may earn it that way alone: log it as a metric of weight 0, or "
                "correct the reward for it."
            )


def _about_the_score(rewards: Sequence[RewardAudit]) -> Iterator[str]:
    """Which rewards the weighted sum is really about; one that takes it all says enough about the others."""
    weighted = [one for one in rewards if one.weight != 0]
    if len(weighted) < 2 or any(one.saturation.unscored == 1 for one in weighted):
        return
    cure = "z-score each reward in its group (`transforms: [{kind: zscore}]`)"
    largest = max(weighted, key=lambda one: -math.inf if math.isnan(one.share) else one.share)
    if largest.share >= LARGE:
        yield (
            f"`{largest.name}` has {share(largest.share)} of the variance of the weighted sum, so the others hardly "
            f"count: {cure}, or lower its weight."
        )
        return
    for one in weighted:
        if one.share < -SMALL:
            yield (
                f"`{one.name}` has a negative share of the weighted sum ({share(one.share)}), so it is sacrificed for "
                "the others: make it a constraint (`weights: {kind: constraint}`), or combine with `soft_min`."
            )
        elif abs(one.share) <= SMALL:
            yield (
                f"`{one.name}` hardly counts ({share(one.share)} of the variance of the weighted sum): {cure}, or "
                "raise its weight."
            )


def _about_double_counting(one: RewardAudit, pairs: Sequence[PairAudit]) -> Iterator[str]:
    """An inflated reward counts twice if what is most like it goes the same way; the opposite is a conflict."""
    mine = [pair for pair in pairs if one.name in (pair.first, pair.second)]
    if math.isnan(one.inflation) or one.inflation < INFLATED or not mine:
        return
    nearest = max(mine, key=lambda pair: abs(pair.agreement.within))
    if nearest.agreement.within > 0:
        other = nearest.second if nearest.first == one.name else nearest.first
        inside = "all" if math.isinf(one.inflation) else share(1 - 1 / one.inflation)
        yield (
            f"`{one.name}` counts twice: {inside} of its variance is in the other rewards already, most of all in "
            f"`{other}`. Drop one of them, or lower the weight of both."
        )


def _about_conflict(pair: PairAudit) -> Iterator[str]:
    if pair.conflict.rate >= OPPOSED and pair.conflict.decided >= ENOUGH:
        yield (
            f"`{pair.first}` and `{pair.second}` disagree on {share(pair.conflict.rate)} of the pairs that both "
            "decide, so a weighted sum trades one for the other: decide what is good enough (LSC, `soft_min`, a "
            "constraint), and look at both on held-out prompts."
        )
