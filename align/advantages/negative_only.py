"""GRPO-N, a reconstruction: only the abstract's idea (train with the negative part of relative advantages) is known."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.registry import estimator
from align.config.shapers import NegativeOnly


@estimator(NegativeOnly)
def negative_only(inputs: AdvantageInputs, options: NegativeOnly) -> Float[Tensor, "n *t"]:
    """The advantage where it is negative, else 0.

        A_i = min(A_i, 0)

    Assumed: the statistics of the base are taken before anything is set to 0, and the divisors of the loss still count
    the samples that are. Groups of equal rewards stay at 0, unlike in NGRPO. It is a shaper so that any base can be
    combined with it.

    References:
        "The Debate on RLVR", relative negative gradients (GRPO-N); neither text nor code could be read.
        Equation number not checked.
    """
    return inputs.tensor("advantages").clamp(max=0.0)
