"""Positive and negative sample reinforcement: learn from successes only, failures only, or mostly from failures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.outcomes import correct_samples
from align.advantages.registry import estimator
from align.config.estimators import PsrNsr

SIGNALS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "positive": lambda rewards, correct, weight: torch.where(correct, rewards, 0.0),
    "negative": lambda rewards, correct, weight: torch.where(correct, 0.0, rewards - 1.0),
    "weighted": lambda rewards, correct, weight: torch.where(correct, weight * rewards, -1.0),
}


@estimator(PsrNsr)
def psr_nsr(inputs: AdvantageInputs, options: PsrNsr) -> Float[Tensor, "n"]:
    """A number per sample, without any comparison.

        A_i = 0.1 r_i where correct, -1 elsewhere        the default, weighted

        signal      correct      wrong
        positive    r            0            PSR
        negative    0            r - 1        NSR
        weighted    0.1 r        -1           W-REINFORCE

    Meant for rewards of 0 and 1. Failures alone keep the diversity of the successes that are left (large pass@k);
    successes alone sharpen the policy onto what it does already.

    References:
        Zhu et al., "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning", arXiv:2506.01347.
        Equation number not checked.
    """
    correct = correct_samples(inputs, options.success_value)
    return SIGNALS[options.signal](inputs.rewards, correct, options.positive_weight)
