"""GPG: the group-centred reward, scaled up when few samples of the batch earn anything."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_centred
from align.advantages.registry import estimator
from align.config.estimators import Gpg


@estimator(Gpg)
def gpg(inputs: AdvantageInputs, options: Gpg) -> Float[Tensor, "n"]:
    """Reward minus group mean, over the share of samples with a reward other than 0.

        A_i = alpha (r_i - m) / f_norm,        alpha = N / #{j: r_j != 0}

    alpha depends on where 0 is: adding a constant to all rewards changes the advantages. A batch of zeros gives zeros.

    References:
        Chu et al., "GPG: A Simple and Strong Reinforcement Learning Baseline", arXiv:2504.02546.
        Equation number not checked.
    """
    earning = int(torch.count_nonzero(inputs.rewards))
    alpha = len(inputs) / max(earning, 1)
    return alpha * group_centred(inputs.rewards, inputs.ids) / options.f_norm
