"""Flow-GRPO: noise in the steps of a flow model makes them Gaussian; then GRPO, step by step.

    rho_t = p(x_(t+dt) | x_t, c) / p_old(x_(t+dt) | x_t, c)
    loss  = mean over rows and trained steps of max(-A rho_t, -A clip(rho_t, 1 - c, 1 + c)) + kl_beta KL_t

Paper (Liu et al., arXiv:2505.05470) -> released code -> here:

* log-probability: of the density -> mean over latent elements -> both, `algorithm.log_prob`.
* KL: of the two Gaussians, in nats -> that times |dt| / elements -> both, `algorithm.kl_norm`; `velocity` is the
  squared difference of the outputs, as later recipes have it.
* advantage: group mean and standard deviation -> standard deviation of the batch -> both, `pipeline.base: flow_grpo`.
* last step: silent -> noisy, not trained -> `algorithm.steps: {kind: all, share: 0.99}`.
* guidance: both branches trained -> no gradient through the unconditional one -> both,
  `algorithm.detach_unconditional`.
* rows of advantage 0: silent -> dropped, and the mean is over the others -> kept in the mean;
  `algorithm.skip_zero_advantages` saves their passes without changing a number.

What came later is a setting here:

* Fast: `algorithm.steps: random_window`; in its first form the group shares its noise until the window begins:
  `algorithm.branching: {at: [0], factor: K}`.
* MixGRPO (Li et al., arXiv:2507.21802): `algorithm.steps: sliding_window`.
* CPS: `rollout.sampler: cps`. BranchGRPO, TreeGRPO: `algorithm.branching` and `pipeline.base`.
* GRPO-Guard (Wang et al., arXiv:2510.22319): `algorithm.guard`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.chain import ChainMethod, Old, PolicyTerm, clipped_term
from diffusion.chain_batch import Piece
from diffusion.config import BranchingConfig
from diffusion.losses.chain import guarded_log_ratio, released_kl, transition_kl
from diffusion.losses.distance import velocity_kl
from diffusion.step import Step

Distance = Callable[[Tensor, Tensor, Step, Step, Piece], Tensor]
"""(output, the base model's, step, the base model's, where) -> one number a row."""

DISTANCES: dict[str, Distance] = {
    "released": lambda output, other, now, base, piece: released_kl(now.mean, base.mean, now.std, piece.dt),
    "exact": lambda output, other, now, base, piece: transition_kl(now.mean, base.mean, now.std),
    "velocity": lambda output, other, now, base, piece: velocity_kl(output, other, torch.as_tensor(piece.at.t)),
}


class FlowGrpo(ChainMethod):
    """The clipped ratio of each trained step, plain or guarded, and the pull to the base model."""

    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """max(-A rho, -A clip(rho))."""
        guard = self.config.guard
        if guard is None:
            return clipped_term(now.log_prob - old.log_probs, piece.advantages, self.config.clip_range)
        log_ratio = guarded_log_ratio(now.log_prob, old.log_probs, now.mean, old.mean, now.std)
        term = clipped_term(log_ratio, piece.advantages, self.config.clip_range)
        if not guard.divide_by_dt:
            return term
        return PolicyTerm(loss=term.loss / piece.dt.abs().to(term.loss), metrics=term.metrics)

    def pull(self, output: Tensor, now: Step, piece: Piece) -> PolicyTerm | None:
        """kl_beta times the distance to the base model at the same states."""
        beta = self.config.kl_beta
        if beta == 0:
            return None
        with self._policy.reference() as network, torch.no_grad():
            other = self._predict(network, piece)
        base = self._transition(piece, other)
        distance = DISTANCES[self.config.kl_norm](output, other, now, base, piece)
        return PolicyTerm(loss=beta * distance, metrics={"kl": distance.detach().mean()})

    def reads_means(self) -> bool:
        """GRPO-Guard does."""
        return self.config.guard is not None

    def branching(self) -> BranchingConfig | None:
        """As configured."""
        return self.config.branching
