"""Losses of the DPO family that stop pushing somewhere: hinge, squares, and differences of sigmoids.

Symbols as in `pair.py`: x = beta h, a and b the log-ratios of chosen and rejected.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from preference.losses.pair import Pair, pair_loss


@pair_loss(divergence=True)
def hinge(pair: Pair) -> Float[Tensor, "n"]:
    """max(0, 1 - x): SLiC's margin of 1 on the reference's scale; 1 at the reference, flat for x >= 1.

    References:
        Zhao et al., "SLiC-HF", arXiv:2305.10425; Liu et al., "Statistical Rejection Sampling" (RSO), arXiv:2309.06657.
    """
    return torch.relu(1 - pair.logit)


@pair_loss(divergence=True, lengths="optional")
def ipo(pair: Pair) -> Float[Tensor, "n"]:
    """(h - 1 / (2 beta))^2: regress the margin on a finite target; 1 / (4 beta^2) at the reference.

    beta is the paper's tau. With lengths, h = a / n_w - b / n_l: the usual form, because a sum over hundreds of tokens
    has no business with a target of a few nats. Without lengths the log-probabilities are taken as they are: averages
    that the caller made, or sums, as the paper writes it.

    References:
        Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv:2310.12036,
        equation 17.
    """
    return (pair.average_difference - 1 / (2 * pair.beta)).square()


@pair_loss()
def sppo_hard(pair: Pair) -> Float[Tensor, "n"]:
    """(a - 1 / (2 beta))^2 + (b + 1 / (2 beta))^2; 1 / (2 beta^2) at the reference.

    Self-play preference optimisation with win rates 1 and 0: each answer has its own target, so the likelihood of the
    chosen one cannot fall along with the other's.

    References:
        Wu et al., "Self-Play Preference Optimization for Language Model Alignment", arXiv:2405.00675.
    """
    target = 1 / (2 * pair.beta)
    return (pair.chosen - target).square() + (pair.rejected + target).square()


@pair_loss()
def apo_zero(pair: Pair) -> Float[Tensor, "n"]:
    """1 - sigma(beta a) + sigma(beta b); between 0 and 2, 1 at the reference.

    Raises chosen and lowers rejected answers: for data that is better than the policy.

    References:
        D'Oosterlinck et al., "Anchored Preference Optimization", arXiv:2408.06266.
    """
    return torch.sigmoid(-pair.beta * pair.chosen) + torch.sigmoid(pair.beta * pair.rejected)


@pair_loss()
def apo_down(pair: Pair) -> Float[Tensor, "n"]:
    """sigma(beta a) + 1 - sigma(beta (a - b)); between 0 and 2, 1 at the reference.

    Lowers both answers, the rejected one further: for data that is worse than the policy.

    References:
        D'Oosterlinck et al., arXiv:2408.06266.
    """
    chosen, rejected = pair.beta * pair.chosen, pair.beta * pair.rejected
    return torch.sigmoid(chosen) + torch.sigmoid(-(chosen - rejected))
