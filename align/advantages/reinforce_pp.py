"""REINFORCE++: no group and no critic; the return of each token is whitened over all tokens of the batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.credit.scan import masked_discounted_scan
from align.advantages.credit.units import placed_rewards, trained_positions
from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.advantages.whitening import whitened
from align.config.estimators import ReinforcePP
from align.objectives import kl_estimate


@estimator(ReinforcePP)
def reinforce_pp(inputs: AdvantageInputs, options: ReinforcePP) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """Discounted return of each position, whitened over the batch.

        r_t = [t is the last trained position] R - beta KL_t
        g_t = sum_{u >= t} gamma^(trained positions between t and u) r_u
        A_t = (g_t - mean) / sqrt(var + 1e-8)        mean and var over all trained positions of the batch

    Statistics are per position, so long responses weigh more in them. Samples of one prompt are not compared with each
    other: equal rewards in a group do not give 0 (rule C1 does not apply), equal returns in the whole batch do.

    Without a `mask` each sample is one position and so is its advantage: pictures. With `token_rewards` these are the
    r_t before the KL term, outcome included.

    References:
        Hu, "REINFORCE++", arXiv:2501.03262, the token-level reward and the global advantage normalisation.
        Equation number not checked.

    Note:
        Positions with mask 0 (tool output) are skipped: they add nothing and do not discount. Some released versions
        begin a new sum behind each of them, so that no credit crosses a tool call. The variance is unbiased as in
        verl; OpenRLHF takes the population form, a difference of 1 / (2 n).
    """
    if inputs.mask is None:
        everything = torch.ones_like(inputs.rewards, dtype=torch.bool)
        return whitened(inputs.rewards, everything, unbiased=options.unbiased, eps=options.eps)
    trained = trained_positions(inputs)
    rewards = placed_rewards(inputs, trained)
    if options.kl_beta:
        divergence = kl_estimate(inputs.tensor("logprobs"), inputs.tensor("ref_logprobs"), options.kl_kind)
        rewards = rewards - options.kl_beta * divergence
    returns = masked_discounted_scan(rewards, trained, options.gamma)
    return whitened(returns, trained, unbiased=options.unbiased, eps=options.eps)
