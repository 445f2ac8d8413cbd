"""LOOP, leave-one-out PPO: several rollouts of a prompt, each compared with the others, clipped step by step.

For each prompt c, K >= 2 independent chains x^k_T .. x^k_0 of the old policy, one reward each.

    A_k  = r_k - 1/(K - 1) sum_{j != k} r_j
    J    = E_c [ 1/K sum_k sum_t f(rho_{k,t}, A_k) ]
    rho  = p(x^k_(t-1) | x^k_t, c) / p_old(x^k_(t-1) | x^k_t, c)
    f    = min(rho A, clip(rho, 1 - c, 1 + c) A)        `ppo_min`
    f    = clip(rho, 1 - c, 1 + c) A                    `clip_only`

Gupta et al., arXiv:2503.00897. There is no public code. Definition, from the abstract and the usual construction of its
parts: the leave-one-out baseline, the ratio per step with its clip, K rollouts per prompt, no division by a standard
deviation, no KL. Choices of ours, because they could not be checked against the paper's full text:

* f: the paper's equation may show the clipped form only; both are here, `algorithm.objective`.
* mean over steps in place of the sum: a factor on the learning rate, which then is DDPO's.
* numbers (50 DDIM steps, eta 1, guidance 5, clip 1e-4, learning rate 3e-4, LoRA): DDPO's.

Because A keeps the unit of the reward, the size of a step follows the reward's scale.

For flow models nothing changes but the transition: `rollout.sampler: flow_sde`.
"""

from __future__ import annotations

from diffusion.chain import ChainMethod, Old, PolicyTerm, clipped_term
from diffusion.chain_batch import Piece
from diffusion.step import Step


class Loop(ChainMethod):
    """The clipped ratio of each trained step; the baseline is `pipeline.base: rloo`."""

    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """-f(rho, A)."""
        log_ratio = now.log_prob - old.log_probs
        return clipped_term(log_ratio, piece.advantages, self.config.clip_range, self.config.objective)
