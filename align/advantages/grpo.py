"""GRPO: the reward compared with its group, in standard deviations."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs
from align.advantages.normalise import group_centred, group_standardised
from align.advantages.registry import estimator
from align.config.pipeline import Grpo
from align.groups import Scope


def _scope(options: Grpo) -> Scope:
    return "batch" if options.scale == "batch" else "group"


@estimator(Grpo, requires=("group_ids",), scope=_scope)
def grpo(inputs: AdvantageInputs, options: Grpo) -> Float[Tensor, "n"]:
    """Group z-score.

        A_i = (r_i - m) / (s + eps)        m, s: mean and standard deviation of the sample's group

    The division makes every prompt weigh alike, however far its rewards spread: tiny differences of a continuous scorer
    become full-size advantages. `scale="batch"` divides by the spread of all rewards instead, `"none"` not at all.

    References:
        Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1.2.

    Note:
        The defaults (unbiased, s + 1e-4) are TRL's; other projects use the population form or another eps. Write down
        which.
    """
    if options.scale == "none":
        return group_centred(inputs.rewards, inputs.ids)
    return group_standardised(
        inputs.rewards,
        inputs.ids,
        scope=_scope(options),
        unbiased=options.unbiased,
        eps=options.eps,
        eps_mode=options.eps_mode,
    )
