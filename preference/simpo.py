"""SimPO: average log-probabilities compared within pairs, with a margin and without a reference. Page: docs/simpo.md.

Paper: -log sigma(beta (m_w - m_l) - gamma), m the log-probability of an answer over its number of tokens. The division
is `SequenceScores.averages`, that is `pool_flat(..., average=True)` in `preference/logprobs/tokens.py`; the loss is
`preference.losses.simpo`. The authors' code gives the margin as gamma / beta; TRL's gives gamma and adds a likelihood
term unless it is told not to. Both spellings are settings here, and the term is off unless asked for.
"""

from __future__ import annotations

from preference.config import SimpoConfig
from preference.losses import PairLosses, simpo
from preference.pair_method import PairMethod
from preference.scores import SequenceScores, sides


class Simpo(PairMethod):
    """The method, as the loop sees it."""

    def compare(self, scores: SequenceScores, reference: SequenceScores | None) -> PairLosses:
        """See `preference.losses.simpo`."""
        config: SimpoConfig = self.config
        return simpo(
            *sides(scores.averages()),
            beta=config.beta,
            kind=config.loss,
            label_smoothing=config.label_smoothing,
            alpha=config.alpha,
            **config.margin(),
        )
