"""Training on all scored answers of a round: each counts by its score, not only the best.

    rwr     -c_i log p(y_i | text(v), x),           c_i = n softmax_i(s / tau) over the n scored answers of (x, v)
    grpo    clipped surrogate of A_i,               A_i: advantage of s_i within (x, v), ratio against the round's start

Both are means over the tokens of an update, as `loss: sft` is; with c_i = 1 the first is `sft`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.config.pipeline import Base, PipelineConfig
from align.objectives import aggregate, clip_statistics, clipped_surrogate, exponential_weights
from align.shaping.pipeline import SignalPipeline
from align.types import LossOutput, RewardTable
from preference.batches import ResponseBatch
from preference.config import SftConfig
from preference.pair_method import PairParts
from preference.sft import Sft
from preference.stored_pairs import StoredResponses

if TYPE_CHECKING:
    from preference.reference import ReferenceTable
    from preference.scores import SequenceScores


def regression_weights(
    scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], temperature: float
) -> Float[Tensor, "n"]:
    """c_i of `rwr`; 0 where unscored."""
    return exponential_weights(scores, group_ids, temperature)


def group_advantages(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], base: Base) -> Float[Tensor, "n"]:
    """A_i of `grpo` by one of the shared estimators; 0 where unscored.

    Args:
        scores: along the direction of each answer; NaN = unscored.
        group_ids: equal for answers to one prompt under one direction: answers under other directions are no baseline.
        base: settings of the estimator.
    """
    table = RewardTable(names=("score",), values=scores.float().unsqueeze(1), weights=torch.ones(1))
    return SignalPipeline(PipelineConfig(base=base, clip=None))(table, group_ids).advantages.double()


@dataclass(frozen=True, kw_only=True)
class ScoredBatch(ResponseBatch):
    """Answers with what their score makes of them.

    Attributes:
        coefficients: c_i, or A_i.
        old: log-probabilities of each answer's tokens at the round's start, nats; None where the policy still is that.
    """

    coefficients: Float[Tensor, "n"]
    old: Sequence[Float[Tensor, "_"]] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredResponses(StoredResponses):
    """The answers of a round, each with its coefficient.

    Attributes:
        coefficients: one a row.
        reference: what the policy at the round's start says of them; None where nobody asks.
    """

    coefficients: Float[Tensor, "n"]
    reference: ReferenceTable | None = None

    def batch(self, rows: Int[Tensor, "n"], index: Int[Tensor, "n"]) -> ScoredBatch:
        """A batch of these places in the data; see `StoredPairs.batch`."""
        plain = super().batch(rows, index)
        return ScoredBatch(
            index=plain.index,
            rows=plain.rows,
            prompts=plain.prompts,
            responses=plain.responses,
            coefficients=self.coefficients[rows],
            old=None if self.reference is None else self.reference.of(rows),
        )


class Regression(Sft):
    """`rwr`: every answer is imitated, the better the more."""

    def __init__(self, parts: PairParts) -> None:
        super().__init__(SftConfig(), parts)

    def loss(self, micro: ScoredBatch) -> LossOutput:  # type: ignore[override]  # its rows are single answers
        """Mean over the micro-batch's answers such that micro-batches add up to the mean over the update's tokens."""
        scores = self.scorer.score(self.scorer.lay(micro.groups()))
        log_probs, mask, size = scores.table(), scores.mask(), self._size
        coefficients = micro.coefficients.to(log_probs)
        per_token, metrics = self._per_token(scores, log_probs, mask, coefficients, micro.old)
        mean = aggregate(per_token, mask, self.config.mode, token_count=size.chosen_tokens, sequence_count=size.pairs)
        loss = mean * size.pairs / len(micro)
        return LossOutput(
            loss=loss,
            count=len(micro),
            metrics={**metrics, "logps/chosen": scores.sums().detach().mean(), "lengths/chosen": _lengths(scores)},
        )

    def _per_token(
        self,
        scores: SequenceScores,
        log_probs: Float[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        coefficients: Float[Tensor, "n"],
        old: Sequence[Tensor] | None,
    ) -> tuple[Float[Tensor, "n t"], Mapping[str, Tensor]]:
        return -coefficients.unsqueeze(1) * log_probs, {}


class Clipped(Regression):
    """`grpo`: better answers than the others of their group become likelier, worse ones less likely.

    Args:
        parts: what it works with.
        clip: how far the ratio counts beyond 1, on both sides.
    """

    def __init__(self, parts: PairParts, clip: float) -> None:
        super().__init__(parts)
        self._clip = clip

    def _per_token(
        self,
        scores: SequenceScores,
        log_probs: Float[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        coefficients: Float[Tensor, "n"],
        old: Sequence[Tensor] | None,
    ) -> tuple[Float[Tensor, "n t"], Mapping[str, Tensor]]:
        before = log_probs.detach() if old is None else scores.table(torch.cat(list(old)).to(log_probs))
        losses = clipped_surrogate(log_probs, before, coefficients, self._clip, self._clip)
        return losses, clip_statistics(log_probs, before, coefficients, self._clip, self._clip, mask)


def _lengths(scores: SequenceScores) -> Float[Tensor, ""]:
    return scores.lengths.double().mean()
