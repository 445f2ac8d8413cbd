"""DDPO's advantage: a z-score against the last rewards of the same prompt, remembered over the steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.estimators import DdpoTracked
from align.groups import group_is_constant, group_mean, group_min, group_rank, group_size, group_std


@estimator(DdpoTracked, requires=("prompt_ids",), scope="batch", stateful=True, min_group=1, exact_zero=False)
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
        Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv:2305.13301, section 5 and appendix
        (normalisation per prompt); the released tracker: population form, buffer of 16 or 32, at least 16.

    Note:
        If a batch brings more samples of a prompt than the buffer holds, the last ones by input order stay.
    """
    prompts: Int[Tensor, "n"] = inputs.tensor("prompt_ids")
    rewards = inputs.rewards
    kept_ids, kept = _remembered(prompts, rewards, options.buffer_size, state)
    known = group_size(kept_ids)
    advantages = _standardised(kept, kept_ids, rewards, prompts, options)
    everything = torch.zeros_like(prompts)
    of_batch = _standardised(rewards, everything, rewards, everything, options)
    enough = _of_prompts(known.double(), kept_ids, prompts) >= options.min_count
    return AdvantageResult(
        advantages=torch.where(enough, advantages, of_batch),
        stats={"ddpo/frac_tracked": float(enough.double().mean()), "ddpo/remembered": float(len(kept))},
        state={"prompt_ids": kept_ids, "rewards": kept},
    )


def _remembered(
    prompts: Int[Tensor, "n"], rewards: Float[Tensor, "n"], size: int, state: Mapping[str, Tensor]
) -> tuple[Int[Tensor, "e"], Float[Tensor, "e"]]:
    """The last `size` rewards of each prompt, oldest first."""
    if state:
        prompts = torch.cat([state["prompt_ids"].to(prompts), prompts])
        rewards = torch.cat([state["rewards"].to(rewards), rewards])
    age = torch.arange(len(prompts), device=prompts.device).double()
    recent = group_rank(age, prompts) >= group_size(prompts) - size
    return prompts[recent], rewards[recent]


def _standardised(
    memory: Float[Tensor, "e"],
    memory_ids: Int[Tensor, "e"],
    rewards: Float[Tensor, "n"],
    prompts: Int[Tensor, "n"],
    options: DdpoTracked,
) -> Float[Tensor, "n"]:
    """Rewards against the statistics of their prompt's part of the memory."""
    # The mean of equal numbers may miss them in the last digit, and eps is small: take the number itself.
    mean = torch.where(
        group_is_constant(memory, memory_ids), group_min(memory, memory_ids), group_mean(memory, memory_ids)
    )
    std = group_std(memory, memory_ids, unbiased=options.unbiased)
    centred = rewards - _of_prompts(mean, memory_ids, prompts)
    return torch.where(centred == 0, 0.0, centred / (_of_prompts(std, memory_ids, prompts) + options.eps))


def _of_prompts(numbers: Float[Tensor, "e"], memory_ids: Int[Tensor, "e"], prompts: Int[Tensor, "n"]) -> Tensor:
    """A number per remembered reward, equal within a prompt, looked up for each sample's prompt."""
    unique, codes = torch.unique(memory_ids, return_inverse=True)
    of_unique = torch.empty(len(unique), dtype=numbers.dtype, device=numbers.device)
    of_unique[codes] = numbers
    return of_unique[torch.searchsorted(unique, prompts)]
