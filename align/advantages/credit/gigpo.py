"""GiGPO: GRPO over episodes, and a second comparison among all steps that start in the same state.

    A = A_episode + omega A_step
    A_episode: (r_i - m) / (s + eps) over the trajectories of the prompt
    A_step:    the same for the discounted return from the step on, among the steps of the prompt's trajectories with
               equal state;  0 for a state that occurs once

Agents of one prompt pass through the same states again and again: what came out afterwards compares their actions
without a critic and without extra rollouts.

References:
    Feng et al., "Group-in-Group Policy Optimization for LLM Agent Training", arXiv:2505.10978.
    Equation number not checked.

Note:
    A widespread release groups by the bare state, so that equal states of different prompts mix, and standardises
    episodes over step rows, so that long episodes weigh more. Here states are compared within a prompt and episodes are
    counted once. `scale="none"` leaves out both divisions.
"""

from __future__ import annotations

from align.advantages.credit.keys import joint_ids
from align.advantages.credit.scan import masked_discounted_scan
from align.advantages.credit.standard import centred, z_score
from align.advantages.credit.states import steps_of
from align.advantages.credit.units import broadcast, placed_rewards, trained_positions, unit_sum
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.trees import Gigpo
from align.groups import group_size


@estimator(Gigpo)
def gigpo(inputs: AdvantageInputs, options: Gigpo) -> AdvantageResult:
    """Comparison of episodes plus omega times the comparison of steps that start in the same state."""
    trained = trained_positions(inputs)
    steps = steps_of(inputs, trained, "gigpo")
    rewards = unit_sum(placed_rewards(inputs, trained), steps.of_position, steps.exists.shape[1])
    returns = masked_discounted_scan(rewards, steps.exists, options.gamma)
    states = joint_ids(inputs.ids.unsqueeze(1).expand_as(steps.before), steps.before)

    if options.scale == "none":
        of_episode, of_step = centred(inputs.rewards, inputs.ids), centred(returns, states, steps.exists)
    else:
        scale = {"unbiased": options.unbiased, "eps": options.eps}
        of_episode = z_score(inputs.rewards, inputs.ids, **scale)
        of_step = z_score(returns, states, steps.exists, **scale)
    repeated = group_size(states.flatten(), steps.exists.flatten()).reshape(states.shape) > 1
    return AdvantageResult(
        advantages=of_episode.unsqueeze(1) + options.omega * broadcast(of_step, steps.of_position),
        stats={"repeated_states": float(repeated[steps.exists].double().mean())},
    )
