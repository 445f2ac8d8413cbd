"""DDPO's advantage: a z-score against the last rewards of the same prompt, remembered over the steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.estimators import DdpoTracked
from align.groups import group_codes, group_is_constant, group_mean, group_min, group_rank, group_size, group_std


@estimator(DdpoTracked)
def ddpo_tracked(inputs: AdvantageInputs, options: DdpoTracked, state: Mapping[str, Tensor]) -> AdvantageResult:
    """Reward in standard deviations from the mean of what its prompt has earned lately.

        A_i = (r_i - mean) / (std + 1e-6)
        mean, std: of the last `buffer_size` rewards of the prompt, this batch's included; of the whole batch while the
        prompt has fewer than `min_count`

    No group is needed: a prompt that comes once in a step is compared with its past. Equal rewards of a group do not
    give 0 (rule C1 does not apply); a buffer, or a batch, of one number gives exactly 0 to that number. Prompts
    are told apart by `prompt_ids`, which must be the same in every step, never by their text.

    State: `prompt_ids` and `rewards`, one entry per remembered reward, oldest first.

    References:
        Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv:2305.13301, the
        normalisation of rewards per prompt; the released tracker: population form, buffer of 16 or 32, at least 16.
        Equation number not checked.

    Note:
        If a batch brings more samples of a prompt than the buffer holds, the last ones by input order stay.
    """
    prompts, rewards = _with_memory(inputs, state)
    codes, _ = group_codes(prompts)
    age = torch.arange(len(codes), device=codes.device).double()
    recent = group_rank(age, codes) >= group_size(codes) - options.buffer_size
    new = age >= len(codes) - len(inputs)
    tracked = _standardised(rewards, codes, recent, options)[new]
    of_batch = _standardised(rewards, torch.zeros_like(codes), new, options)[new]
    enough = (group_size(codes, where=recent) >= options.min_count)[new]
    return AdvantageResult(
        advantages=torch.where(enough, tracked, of_batch),
        stats={"ddpo/frac_tracked": float(enough.double().mean()), "ddpo/remembered": float(recent.sum())},
        state={"prompt_ids": prompts[recent], "rewards": rewards[recent]},
    )


def _with_memory(inputs: AdvantageInputs, state: Mapping[str, Tensor]) -> tuple[Int[Tensor, "e"], Float[Tensor, "e"]]:
    """Prompts and rewards that are remembered, then those of this batch."""
    prompts, rewards = inputs.tensor("prompt_ids"), inputs.rewards
    if not state:
        return prompts, rewards
    return torch.cat([state["prompt_ids"].to(prompts), prompts]), torch.cat([state["rewards"].to(rewards), rewards])


def _standardised(
    rewards: Float[Tensor, "e"], ids: Int[Tensor, "e"], where: Bool[Tensor, "e"], options: DdpoTracked
) -> Float[Tensor, "e"]:
    """Rewards against the statistics of their group's chosen members."""
    # The mean of equal numbers may miss them in the last digit, and eps is small: take the number itself.
    constant = group_is_constant(rewards, ids, where=where)
    mean = torch.where(constant, group_min(rewards, ids, where=where), group_mean(rewards, ids, where=where))
    centred = rewards - mean
    std = group_std(rewards, ids, unbiased=options.unbiased, where=where)
    return torch.where(centred == 0, 0.0, centred / (std + options.eps))
