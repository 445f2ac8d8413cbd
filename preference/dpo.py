"""DPO and its family: the policy's log-ratios to a reference, compared within pairs. Page: docs/dpo.md.

Paper: a logistic loss on the difference of two implicit rewards beta (log pi - log pi_ref), summed over tokens. The
loss and its relatives are `preference.losses.dpo`. Where we differ from TRL 1.16: label smoothing acts on `sigmoid`,
too, and WPO's weight of a pair is at most 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from preference.config import DpoConfig
from preference.losses import PairLosses, dpo, ld_log_probs, wpo_weights
from preference.pair_method import PairMethod, PairParts
from preference.scores import SequenceScores, Sides, sides


class Dpo(PairMethod):
    """The method, as the loop sees it.

    Args:
        config: the method's settings.
        parts: what it works with.
    """

    def __init__(self, config: DpoConfig, parts: PairParts) -> None:
        super().__init__(config, parts)
        self.extras = ("log_sum_squares",) if config.wpo else ()

    def penalty(self) -> float | None:
        """beta of losses on summed log-ratios."""
        return None if self.config.reads_lengths() else self.config.beta

    def compare(self, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """See `preference.losses.dpo`."""
        config: DpoConfig = self.config
        policy = self._answers(scores)
        ref: Sides | tuple[None, None] = (None, None) if reference is None else self._answers(reference)
        options: dict[str, Any] = {}  # Any: keyword arguments of several types
        if config.reads_lengths():
            lengths = sides(scores.lengths)
            options |= {"chosen_lengths": lengths.chosen, "rejected_lengths": lengths.rejected}
        if config.alpha is not None:
            options["alpha"] = config.alpha
        if config.discopop_temperature is not None:
            options["temperature"] = config.discopop_temperature
        return dpo(
            *policy,
            *ref,
            beta=config.beta,
            kind=config.mix(),
            label_smoothing=config.label_smoothing,
            divergence=config.divergence,
            reference_weight=config.reference_weight,
            weights=_weights(scores) if config.wpo else None,
            **options,
        )

    def _answers(self, scores: SequenceScores) -> Sides:
        """Summed log-probabilities, the surplus tokens of the longer answer at their weight."""
        if self.config.ld_alpha == 1:
            return sides(scores.sums())
        tables, masks = sides(scores.table()), sides(scores.mask())
        return Sides(*ld_log_probs(*tables, *masks, alpha=self.config.ld_alpha))


def _weights(scores: SequenceScores) -> Float[Tensor, "n"]:
    """WPO's weight of each pair."""
    squares: Mapping[str, Tensor] = scores.extras
    return wpo_weights(*sides(scores.table()), *sides(scores.table(squares["log_sum_squares"])), *sides(scores.mask()))
