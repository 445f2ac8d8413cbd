"""What every method on stored pairs does alike: read the pairs of a step, score them, ask the reference, keep books.

A method adds its loss (`compare`) and says what it needs.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.types import LossOutput
from preference.batches import PairBatch
from preference.losses import PairLosses, negative_log_likelihood
from preference.pair_metrics import idealised_metrics, policy_metrics, reference_metrics, reward_metrics
from preference.reference import stored_log_probs
from preference.scores import SequenceScores, Sides, sides
from preference.stored_pairs import UpdateSize

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from preference.forward import SequenceScorer
    from preference.layout import Layout
    from preference.records import TeacherRecords
    from preference.sampler import PairSampler
    from preference.stored_pairs import StoredPairs, StoredResponses

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Largest difference of policy and reference before the first update, nats a token, by what the network computes in."""


def likelihoods(scores: SequenceScores) -> PairLosses:
    """Held-out pairs for methods that compare none: -log pi of the chosen answer a token, both averages as rewards."""
    averages = sides(scores.averages())
    return PairLosses(losses=-averages.chosen, chosen_rewards=averages.chosen, rejected_rewards=averages.rejected)


@dataclass(frozen=True, kw_only=True)
class PairParts:
    """What a method on pairs works with.

    Attributes:
        pairs: the data, with stored reference numbers if there are any; single answers for `sft`.
        sampler: which pairs a step reads.
        scorer: the pass of the network.
        policy: the trained network; asked for its reference where none is stored.
        dtype: what the network computes in.
        records: what the teachers say of the pairs, for methods that learn from them; not needed to evaluate.
    """

    pairs: StoredPairs | StoredResponses
    sampler: PairSampler
    scorer: SequenceScorer
    policy: Policy
    dtype: torch.dtype = torch.float32
    records: TeacherRecords | None = None


class PairMethod(ABC):
    """A method, as the loop sees it (`align.engine.algorithm.Algorithm`), but for its loss.

    Args:
        config: the method's own settings (Any: a member of `Algorithm`).
        parts: what it works with.
    """

    extras: tuple[str, ...] = ()
    """What the loss reads of each token beside its log-probability; names in `preference.logprobs.EXTRAS`."""

    def __init__(self, config: Any, parts: PairParts) -> None:
        self.config = config
        self._parts = parts
        self._step, self._update = 0, 0
        self._size = UpdateSize(pairs=0, chosen_tokens=0)
        self._start: list[Tensor] = []

    @property
    def scorer(self) -> SequenceScorer:
        """The pass of the network."""
        return self._parts.scorer

    @abstractmethod
    def compare(self, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """Loss and rewards of each pair.

        Args:
            scores: of the policy, with gradient.
            reference: the same tokens under the reference, None where the method has none.
        """

    def judge(self, micro: PairBatch, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """`compare` for held-out pairs, with whatever else there is on them.

        Args:
            micro: the pairs.
            scores: of the policy, without gradient.
            reference: as in `compare`.
        """
        return self.compare(scores, reference)

    def penalty(self) -> float | None:
        """beta, where the loss is one of a KL penalty on whole answers: it says how far the best policy can go."""
        return None

    def collect(self, step: int) -> PairBatch:
        """The next pairs."""
        self._step = step
        pairs: Any = self._parts.pairs  # Any: `Sft`, which reads single answers, says so itself
        return pairs.of_step(step, self._parts.sampler)

    def prepare_update(self, update: int, rows: PairBatch) -> None:
        """How many pairs and tokens the update has over all processes."""
        self._update = update
        self._size = self._parts.pairs.size_of(self._step, update, self._parts.sampler)

    def loss(self, micro: PairBatch) -> LossOutput:
        """Mean loss of the pairs, and the supervised term."""
        layout = self.scorer.lay(micro.groups())
        stored = self._ask(micro, layout) if self.config.reads_reference() else None
        scores = self.scorer.score(layout, self.extras)
        reference = None if stored is None else scores.like(stored)
        found = self.compare(scores, reference)
        loss, metrics = found.losses.mean(), self._metrics(micro, found, scores, reference)
        if self.config.sft_weight > 0:
            supervised = self._supervised(scores, len(micro))
            loss = loss + self.config.sft_weight * supervised
            metrics["nll_loss"] = supervised.detach()
        return LossOutput(loss=loss, count=len(micro), metrics=metrics)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Before the first update policy and reference are one; if they are not, say so, once."""
        found, self._start = self._start, []
        worst = max((float(value) for value in found), default=0.0)
        tolerance = TOLERANCE.get(self._parts.dtype, 1e-2)
        if worst > tolerance:
            log.warning(
                "before the first update the policy differs from its reference by %.1e nats a token (rounding is below "
                "%.0e): the loss does not start where it should. Dropout, another precision, or an adapter that does "
                "not start at zero is the usual cause.",
                worst,
                tolerance,
            )
        return {}

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """Nothing: the pairs of a step follow from its number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:  # noqa: B027  there is none
        """Nothing."""

    def _ask(self, micro: PairBatch, layout: Layout) -> Float[Tensor, "m"]:
        """The reference's log-probabilities: stored, or from the network as it was before training."""
        if micro.reference is not None:
            return stored_log_probs(micro)
        with self._parts.policy.reference():
            return self.scorer.score(layout).log_probs

    def _metrics(
        self, micro: PairBatch, found: PairLosses, scores: SequenceScores, reference: SequenceScores | None
    ) -> dict[str, Tensor]:
        sums = sides(scores.sums().detach())
        metrics = {
            **reward_metrics(Sides(found.chosen_rewards, found.rejected_rewards)),
            **policy_metrics(sums, sides(scores.lengths)),
        }
        if reference is None:
            return metrics
        ref_sums, beta = sides(reference.sums()), self.penalty()
        metrics |= reference_metrics(sums, ref_sums)
        if beta is not None:
            metrics |= idealised_metrics(sums, ref_sums, (beta,), micro.rates)
        return metrics | self._first(scores, reference)

    def _first(self, scores: SequenceScores, reference: SequenceScores) -> dict[str, Tensor]:
        if (self._step, self._update) != (1, 0):
            return {}
        gap = scores.averages().detach() - reference.averages()
        self._start.append(gap.abs().mean())
        return {"reference_deviation": self._start[-1]}

    def _supervised(self, scores: SequenceScores, pairs: int) -> Float[Tensor, ""]:
        """The likelihood term as a mean over the micro-batch's pairs, which is how the engine weighs micro-batches.

        sum over chosen tokens / tokens of the update, times pairs of the update / pairs of the micro-batch: summed over
        micro-batches and processes, the mean over all tokens of the update whatever the cuts are.
        """
        chosen, mask = sides(scores.table()).chosen, sides(scores.mask()).chosen
        size = self._size
        term = negative_log_likelihood(
            chosen,
            mask,
            mode=self.config.sft_mode,
            token_count=size.chosen_tokens,
            sequence_count=size.pairs,
        )
        return term * size.pairs / pairs
