"""Gain over a reference: the reward minus what a reference policy got on the same prompt.

    A_i = r_i - r_ref,i                    r_ref: reward of the reference's answer to the same prompt

The reference is any fixed policy: the base model, the last release, a greedy answer. Its reward does not depend on the
sample, so the baseline is unbiased, one sample per prompt is enough, and "better than before" is what earns credit. A
group in which all samples are equally better than the reference keeps its signal.

    scale "group" or "batch":  A_i / (root mean square of A over the group or the batch + eps)

The root mean square and not the standard deviation: the gain has a natural zero that must not be subtracted.

References:
    A small form of our own from related work; with a greedy answer of the trained policy itself it is ReMax, Li et al.,
    arXiv:2310.10505. Equation number not checked.

Note:
    For pictures the reference's answer must come from noise of its own. On the sample's noise the baseline depends on
    the sample, which biases the gradient; and a policy that still is the reference would have a gain of exactly 0
    everywhere and never leave its start.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.credit import ReferenceGain
from align.config.declarations import scope_of
from align.groups import group_mean, scoped_ids


@estimator(ReferenceGain)
def reference_gain(inputs: AdvantageInputs, options: ReferenceGain) -> Float[Tensor, "n"]:
    """Reward minus the reference's reward, in the unit of the rewards or in root mean squares."""
    gains = inputs.rewards - inputs.tensor("reference_rewards")
    if options.scale == "none":
        return gains
    size = group_mean(gains.square(), scoped_ids(inputs.ids, scope_of(options))).sqrt()
    return torch.where(gains == 0, 0.0, gains / (size + options.eps))
