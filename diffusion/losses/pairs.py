"""Diffusion-DPO: the matching error takes the place of minus a log-likelihood, pair by pair.

    z = -beta/2 [ (L_w - L_l) - (Lref_w - Lref_l) ],    loss = -log sigmoid(z)

L is the matching error of the trained network, Lref that of the base model, w the better picture of the pair, l the
worse; all four at one time and one noise. The same on both paths: noise errors for Diffusion-DPO, velocity errors for
Flow-DPO.

References:
    Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization, arXiv:2311.12908, section 4, with
    the constants T and w(lambda) taken into beta as in its released code, and the factor 1/2 of that code.
    Liu et al., Improving Video Generation with Human Feedback, arXiv:2501.13918 (Flow-DPO).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def implicit_reward(error: Float[Tensor, "*n"], reference: Float[Tensor, "*n"], beta: float) -> Float[Tensor, "*n"]:
    """-beta/2 (L - Lref): what the policy says a picture is worth, compared with the base model.

    Args:
        error: matching errors of the trained network, with gradient.
        reference: of the base model at the same time and noise; a constant.
        beta: scale.
    """
    return -beta / 2 * (error - reference.detach())


def pair_loss(margin: Float[Tensor, "*n"], label_smoothing: float = 0.0) -> Float[Tensor, "*n"]:
    """-(1 - eps) log sigmoid(z) - eps log sigmoid(-z); ln 2 where policy and base agree.

    Args:
        margin: z, implicit reward of the better picture minus that of the worse.
        label_smoothing: eps, share of the labels that are taken to be wrong.
    """
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
