"""Losses of the DPO family that are made of log sigma.

Symbols as in `pair.py`: x = beta h, a and b the log-ratios of chosen and rejected, eps the label smoothing;
softplus(u) = -log sigma(-u).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from preference.losses.pair import Pair, pair_loss, smoothed


@pair_loss(smoothing=True, divergence=True)
def sigmoid(pair: Pair) -> Float[Tensor, "n"]:
    """DPO: -(1 - eps) log sigma(x) - eps log sigma(-x); log 2 at the reference.

    With eps = 0 the optimum is at infinity, with eps > 0 (conservative DPO) where sigma(x) = 1 - eps.

    References:
        Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290, equation 7.
        Mitchell, "A note on DPO with noisy preferences and relationship to IPO", 2023 (label smoothing).
    """
    return smoothed(pair.logit, pair.label_smoothing)


@pair_loss(smoothing=True, lengths="required")
def sigmoid_norm(pair: Pair) -> Float[Tensor, "n"]:
    """Length-normalised DPO: the sigmoid loss of beta (a / n_w - b / n_l); log 2 at the reference.

    beta is n times that of plain DPO for answers of n tokens: 5 is usual.

    References:
        Lambert et al., "Tulu 3", arXiv:2411.15124, the section on preference tuning.
    """
    return smoothed(pair.beta * pair.average_difference, pair.label_smoothing)


@pair_loss(smoothing=True, divergence=True)
def robust(pair: Pair) -> Float[Tensor, "n"]:
    """[-(1 - eps) log sigma(x) + eps log sigma(-x)] / (1 - 2 eps); log 2 at the reference, may be negative.

    Unbiased when labels are flipped with probability eps: its mean over flips is the loss of the clean label.

    References:
        Chowdhury et al., "Provably Robust DPO", arXiv:2403.00409.
    """
    eps = pair.label_smoothing
    if not 0 <= eps < 0.5:
        raise ValueError(f"`robust` needs a label_smoothing in [0, 0.5), found {eps}: at 0.5 labels say nothing.")
    x = pair.logit
    return (-(1 - eps) * logsigmoid(x) + eps * logsigmoid(-x)) / (1 - 2 * eps)


@pair_loss(smoothing=True, divergence=True)
def exo_pair(pair: Pair) -> Float[Tensor, "n"]:
    """KL from the policy's preference to the smoothed label; 0 where sigma(x) = 1 - eps, never negative.

        q [log q - log(1 - eps)] + q' [log q' - log eps],      q = sigma(x), q' = sigma(-x)

    References:
        Ji et al., "Towards Efficient Exact Optimization of Language Model Alignment", arXiv:2402.00856 (EXO, the
        form for pairs; eps = 1e-3 there).
    """
    eps = pair.label_smoothing
    if not eps > 0:
        raise ValueError(
            f"`exo_pair` takes the logarithm of label_smoothing: above 0, please, found {eps}. The paper has 1e-3."
        )
    x = pair.logit
    win, lose = logsigmoid(x), logsigmoid(-x)
    return win.exp() * (win - math.log1p(-eps)) + lose.exp() * (lose - math.log(eps))


@pair_loss()
def nca_pair(pair: Pair) -> Float[Tensor, "n"]:
    """-log sigma(beta a) - log sigma(-beta a) / 2 - log sigma(-beta b) / 2; 2 log 2 at the reference.

    Holds the chosen answer's likelihood up: its own terms rest where sigma(beta a) = 2/3.

    References:
        Chen et al., "Noise Contrastive Alignment of Language Models with Explicit Rewards", arXiv:2402.05369.
    """
    chosen, rejected = pair.beta * pair.chosen, pair.beta * pair.rejected
    return softplus(-chosen) + 0.5 * softplus(chosen) + 0.5 * softplus(rejected)


@pair_loss()
def bco_pair(pair: Pair) -> Float[Tensor, "n"]:
    """-log sigma(beta a - delta) - log sigma(-(beta b - delta)); 2 log 2 at the reference if delta = 0.

    A binary classifier of answers whose logit is the implicit reward. delta, a constant, is the running mean of all
    rewards in the paper and 0 in TRL since its rewrite; we take it from the caller, 0 by default.

    References:
        Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv:2404.04656.
    """
    baseline = pair.baseline.detach() if isinstance(pair.baseline, Tensor) else pair.baseline
    return softplus(-(pair.beta * pair.chosen - baseline)) + softplus(pair.beta * pair.rejected - baseline)


@pair_loss(divergence=True)
def discopop(pair: Pair) -> Float[Tensor, "n"]:
    """(1 - w) (-log sigma(x)) + w exp(-x) with w = sigma(x / tau); (log 2 + 1) / 2 at the reference.

    The loss that a language model found: logistic for wrong pairs, exponential for right ones. It is not convex: at the
    reference its slope is *positive* (0.78 for tau = 0.05), so the gradient of a pair first leads into a local
    minimum near x = -0.1. w carries gradient.

    References:
        Lu et al., "Discovering Preference Optimization Algorithms with and for Large Language Models",
        arXiv:2406.08414 (log-ratio modulated loss, tau = 0.05).
    """
    x = pair.logit
    scaled = x / pair.temperature
    # w exp(-x) in one exponential: for very negative x the two factors would be 0 and inf.
    return torch.sigmoid(-scaled) * softplus(-x) + (logsigmoid(scaled) - x).exp()


@pair_loss(smoothing=True, per_pair=False)
def aot(pair: Pair) -> Float[Tensor, "n"]:
    """Sigmoid loss of sorted margins: the margin of the policy against that of the reference as distributions.

        d = sort(log pi(y_w) - log pi(y_l)) - sort(log pi_ref(y_w) - log pi_ref(y_l))

    Couples all pairs of the tensor: the i-th loss is not that of pair i, and a micro-batch is its own comparison. With
    one pair it is `sigmoid`.

    References:
        Melnyk et al., "Distributional Preference Alignment of LLMs via Optimal Transport", arXiv:2406.05882.
    """
    gap = pair.policy_margin.sort().values - pair.ref_margin.sort().values
    return smoothed(pair.beta * gap, pair.label_smoothing)


@pair_loss(smoothing=True, per_pair=False)
def aot_unpaired(pair: Pair) -> Float[Tensor, "n"]:
    """The same with d = sort(a) - sort(b): chosen and rejected answers need not share prompts.

    References:
        Melnyk et al., arXiv:2406.05882, the unpaired form.
    """
    gap = pair.chosen.sort().values - pair.rejected.sort().values
    return smoothed(pair.beta * gap, pair.label_smoothing)
