"""What a round keeps and how it is trained on, by the name of `algorithm.loss`.

| loss | a row of the round's file | trained by |
|---|---|---|
| sft | best and worst answer | `preference.sft`, on the best |
| dpo | best and worst answer | `preference.dpo`, the policy at the round's start is the reference |
| rwr | every scored answer, with its weight | `scored.Regression` |
| grpo | every scored answer, with its advantage | `scored.Clipped` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.config.group_relative import Grpo
from preference.config import DpoConfig, PairsConfig, SftConfig
from preference.data import read_pairs, read_responses
from preference.dpa.kept import pair_rows, scored_rows
from preference.dpa.scored import Clipped, Regression, ScoredResponses, group_advantages, regression_weights
from preference.dpo import Dpo
from preference.pair_method import PairMethod, PairParts
from preference.sft import Sft
from preference.stored_pairs import StoredPairs, StoredResponses
from preference.tokenise import tokenise_pairs, tokenise_responses

if TYPE_CHECKING:
    from align.pairs import Pairs
    from preference.dpa.config import DpaConfig
    from preference.dpa.control import Control
    from preference.dpa.rounds import Answers
    from preference.reference import ReferenceTable

TAU = 1.0
CLIP = 0.2
WEIGHT, ADVANTAGE = "weight", "advantage"
"""Columns of a round's file."""

Row = dict[str, Any]  # Any: JSON
Stored = StoredPairs | StoredResponses
Keep = Callable[["Answers", "Control", Float[Tensor, "n"], "Pairs", "DpaConfig"], list[Row]]


@dataclass(frozen=True, kw_only=True)
class OpenedRound:
    """What a loss reads a round with.

    Attributes:
        path: its file.
        config: of the method.
        settings: how texts become tokens.
        tokenizer: of the model (Any: transformers').
        parts: what a method on these rows works with.
        at_start: what the policy says of the rows at the round's start. A collective.
        updates: optimiser updates of the round.
    """

    path: Path
    config: DpaConfig
    settings: PairsConfig
    tokenizer: Any
    parts: Callable[[Stored], PairParts]
    at_start: Callable[[Stored], ReferenceTable]
    updates: int


@dataclass(frozen=True, kw_only=True)
class RoundLoss:
    """One way to train on a round.

    Attributes:
        keep: rows of the round's file, from its answers, their scores, and best and worst of the groups that stay.
        open: the method of the round.
    """

    keep: Keep
    open: Callable[[OpenedRound], PairMethod]


def _pairs(
    answers: Answers, control: Control, scores: Float[Tensor, "n"], pairs: Pairs, config: DpaConfig
) -> list[Row]:
    return pair_rows(answers, control, scores, pairs)


def _weighted(
    answers: Answers, control: Control, scores: Float[Tensor, "n"], pairs: Pairs, config: DpaConfig
) -> list[Row]:
    weights = regression_weights(scores, answers.group_ids, config.tau or TAU)
    return scored_rows(answers, control, scores, pairs, {WEIGHT: weights})


def _with_advantages(
    answers: Answers, control: Control, scores: Float[Tensor, "n"], pairs: Pairs, config: DpaConfig
) -> list[Row]:
    advantages = group_advantages(scores, answers.group_ids, config.estimator or Grpo())
    return scored_rows(answers, control, scores, pairs, {ADVANTAGE: advantages})


def _open_sft(opened: OpenedRound) -> PairMethod:
    data = tokenise_responses(read_responses(str(opened.path), opened.settings), opened.tokenizer, opened.settings)
    return Sft(SftConfig(), opened.parts(StoredResponses(data=data)))


def _open_dpo(opened: OpenedRound) -> PairMethod:
    read = read_pairs(str(opened.path), opened.settings)
    pairs = StoredPairs(data=tokenise_pairs(read, opened.tokenizer, opened.settings))
    pairs = replace(pairs, reference=opened.at_start(pairs))
    return Dpo(DpoConfig(beta=opened.config.beta or DpoConfig.beta), opened.parts(pairs))


def _open_rwr(opened: OpenedRound) -> PairMethod:
    return Regression(opened.parts(_scored(opened, WEIGHT)))


def _open_grpo(opened: OpenedRound) -> PairMethod:
    """Where a round is one update, the ratio is 1 while its gradient is taken, and nobody need be asked."""
    answers = _scored(opened, ADVANTAGE)
    if opened.updates > 1:
        answers = replace(answers, reference=opened.at_start(answers))
    return Clipped(opened.parts(answers), opened.config.clip_range or CLIP)


def _scored(opened: OpenedRound, column: str) -> ScoredResponses:
    data = tokenise_responses(read_responses(str(opened.path), opened.settings), opened.tokenizer, opened.settings)
    return ScoredResponses(data=data, coefficients=torch.tensor(data.columns[column], dtype=torch.float32))


LOSSES: Mapping[str, RoundLoss] = {
    "sft": RoundLoss(keep=_pairs, open=_open_sft),
    "dpo": RoundLoss(keep=_pairs, open=_open_dpo),
    "rwr": RoundLoss(keep=_weighted, open=_open_rwr),
    "grpo": RoundLoss(keep=_with_advantages, open=_open_grpo),
}
"""`algorithm.loss` -> what it does."""
