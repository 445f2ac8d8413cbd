"""REINFORCE and RLOO on a denoising chain: the first two rungs of the ladder.

    loss = mean over rows and steps of -A log p(x_(j+1) | x_j, c)

There is no ratio, so a rollout serves one update. What is compared with what is the pipeline's business:

* REINFORCE: `rollout.group_size: 1`, `pipeline.base: {kind: dr_grpo, singleton: raw}`: the bare reward. A constant
  baseline b is a transform: `{kind: affine, shift: -b}`.
* RLOO: `rollout.group_size: K`, `pipeline.base: rloo`: the reward less the mean of the others of its prompt.
* DDPO's score-function form (Black et al., arXiv:2305.13301): `pipeline.base: ddpo_tracked`.

With one update per rollout the ratio methods have this same gradient: their ratio is 1, its gradient grad log p. Only
further updates set `reinforce` and `ddpo` apart.
"""

from __future__ import annotations

from diffusion.chain import ChainMethod, Old, PolicyTerm
from diffusion.chain_batch import Piece
from diffusion.losses.chain import score_function
from diffusion.step import Step


class Reinforce(ChainMethod):
    """-A log p of each trained step."""

    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """The score function; the policy that drew the samples is the current one."""
        return PolicyTerm(loss=score_function(now.log_prob, piece.advantages))
