"""What counts as a success, and numbers of the settings compared with rewards that have been float32."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs


def same_number(rewards: Float[Tensor, "n *m"], value: float) -> Bool[Tensor, "n *m"]:
    """Whether a reward is this number, or what float32 keeps of it: 0.9 in a config is not the 0.9 of a scorer."""
    return (rewards == value) | (rewards == float(torch.tensor(value, dtype=torch.float32)))


def correct_samples(inputs: AdvantageInputs, success_value: float) -> Bool[Tensor, "n"]:
    """`correct`, or else the samples whose reward is `success_value`."""
    return same_number(inputs.rewards, success_value) if inputs.correct is None else inputs.correct
