"""DDPO: the denoising chain as a Markov decision process, PPO's clipped ratio for each step.

    rho_t = p(x_(t-1) | x_t, c) / p_old(x_(t-1) | x_t, c)
    loss  = mean over rows and steps of max(-A rho_t, -A clip(rho_t, 1 - c, 1 + c))

Paper (Black et al., arXiv:2305.13301, DDPO-IS) -> released code -> here:

* log-probability: of the density -> mean over latent elements, so that clip 1e-4 makes sense -> both,
  `algorithm.log_prob`.
* advantage: z-score per prompt over the last rewards of that prompt -> the same -> `pipeline.base: ddpo_tracked`.
* sampler: DDIM, eta 1, 50 steps, the last one noisy -> the same -> `rollout.sampler: {kind: ddim, eta: 1}`; on a flow
  model any noisy step rule.
* order of steps: each sample's own shuffle, an optimiser step every few of them -> gradients of an update are averaged
  over all trained steps, so that the order does not matter.
* DDPO-SF, without the ratio, is `algorithm.kind: reinforce`.
"""

from __future__ import annotations

from diffusion.chain import ChainMethod, Old, PolicyTerm, clipped_term
from diffusion.chain_batch import Piece
from diffusion.step import Step


class Ddpo(ChainMethod):
    """PPO's clipped ratio of each trained step."""

    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """max(-A rho, -A clip(rho))."""
        return clipped_term(now.log_prob - old.log_probs, piece.advantages, self.config.clip_range)
