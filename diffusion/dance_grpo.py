"""DanceGRPO: GRPO on a random subset of the steps of an SDE with constant diffusion.

    loss = mean over rows and trained steps of max(-A rho_t, -A clip(rho_t, 1 - c, 1 + c))

Paper (Xue et al., arXiv:2505.07818) -> released code -> here:

* steps: all -> a random 60 % of all but the last, drawn for each sample -> the same share, `algorithm.steps: random`,
  drawn for each training step and equal for its rows, so that only these states are kept.
* last step: deterministic, to the predicted clean latent -> the same.
* sampler: `rollout.sampler: {kind: dance_sde, noise_level: 0.3}`, 16 steps shifted by 3 -> the model's own schedule.
* initial noise: the same within a group -> `rollout.share_initial_noise: true`.
* advantage: z-score of the group, unbiased, + 1e-8 -> `pipeline.base: {kind: grpo, eps: 1e-8}`.
* one update per rollout and prompt batch -> `training.updates_per_rollout`.
"""

from __future__ import annotations

from diffusion.chain import ChainMethod, Old, PolicyTerm, clipped_term
from diffusion.chain_batch import Piece
from diffusion.step import Step


class DanceGrpo(ChainMethod):
    """PPO's clipped ratio of each trained step."""

    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """max(-A rho, -A clip(rho))."""
        return clipped_term(now.log_prob - old.log_probs, piece.advantages, self.config.clip_range)
