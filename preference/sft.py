"""Supervised fine-tuning: the likelihood of given answers. Page: docs/sft.md.

    loss = -sum over answer tokens of log pi(token | prompt, tokens before it) / tokens of the update

It is the baseline of every preference method, DPA's step after the best answers are picked, and rewarded soups' part.
Held-out pairs are ranked by the average log-probability of their answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from align.types import LossOutput
from preference.losses import PairLosses, negative_log_likelihood
from preference.pair_method import PairMethod, likelihoods
from preference.scores import SequenceScores

if TYPE_CHECKING:
    from preference.batches import ResponseBatch


class Sft(PairMethod):
    """The method, as the loop sees it. It reads `StoredResponses` where others read pairs."""

    def loss(self, micro: ResponseBatch) -> LossOutput:  # type: ignore[override]  # its rows are single answers
        """Mean over the micro-batch's answers such that micro-batches add up to the mean over the update's tokens."""
        scores = self.scorer.score(self.scorer.lay(micro.groups()))
        size = self._size
        found = negative_log_likelihood(
            scores.table(),
            scores.mask(),
            mode=self.config.mode,
            token_count=size.chosen_tokens,
            sequence_count=size.pairs,
        )
        loss = found * size.pairs / len(micro)
        return LossOutput(loss=loss, count=len(micro), metrics=_metrics(scores, loss))

    def compare(self, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """Of held-out pairs: the loss of the chosen answer, and both averages as rewards."""
        return likelihoods(scores)


def _metrics(scores: SequenceScores, loss: Any) -> Mapping[str, Any]:
    return {
        "nll_loss": loss.detach(),
        "logps/chosen": scores.sums().detach().mean(),
        "lengths/chosen": scores.lengths.double().mean(),
    }
