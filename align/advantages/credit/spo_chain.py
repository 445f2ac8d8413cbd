"""SPO-chain: the value of the text so far, estimated where the policy was unsure; a segment earns the change.

    U = {t : pi_old(y_t) < rho}                           unsure positions, rho = 0.9
    a segment begins at the first, (1 + interval)-th, (1 + 2 interval)-th ... member of U
    A(segment) = V(its end) - V(its beginning)            the last end is the reward itself

V is the mean reward of M fresh rollouts from the text before the segment's first position (M = 9 in the paper). It may
come from anywhere else: a critic, the tree of other rollouts (`prefix.node_means`), a reward of partial output.
`cutpoints` says where it is needed. Give it dense in `values` (state before each position; only cuts are read) or in
order in `values_at_cuts`.

    probability mask: only unsure positions get their segment's advantage, and the loss is normalised by their number
    (`aux["loss_mask"]`). As a switch of its own: the shaper `probability_mask`.

References:
    Guo et al., "Segment Policy Optimization", arXiv:2505.23564, the chain-based segment advantage and the mask.
    Equation number not checked.

Note:
    As released: positions before the first cut get 0 (nothing was estimated there), a rollout without an unsure
    position gets 0, gamma = 1. The release compares p > rho in one place and p < rho in another; here it is p < rho
    everywhere. It also whitens over the batch's positions that receive an advantage (`whiten=True`). A rollout with
    an unknown value (NaN) at a cut gets 0 and is counted.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.advantages.credit.probability_mask import unsure_positions
from align.advantages.credit.standard import whiten
from align.advantages.credit.units import trained_positions
from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.credit import SpoChain


@estimator(SpoChain)
def spo_chain(inputs: AdvantageInputs, options: SpoChain) -> AdvantageResult:
    """Change of the value over each segment, on its unsure positions."""
    trained, logprobs = trained_positions(inputs), inputs.tensor("logprobs")
    unsure = unsure_positions(logprobs, trained, options.rho)
    cuts = cutpoints(logprobs, trained, options.rho, options.interval)
    values = _values_at_cuts(inputs, cuts)
    unknown = values.isnan().any(dim=1)
    advantages = segment_advantages(values.nan_to_num(0.0), inputs.rewards, cuts)
    advantages = torch.where(unknown.unsqueeze(1), 0.0, advantages)
    receives = unsure if options.probability_mask else trained
    return AdvantageResult(
        advantages=whiten(advantages, receives) if options.whiten else torch.where(receives, advantages, 0.0),
        aux={"loss_mask": receives.double()},
        stats={
            "unsure_share": float(unsure[trained].double().mean()),
            "cuts": float(cuts.sum(dim=1).double().mean()),
            "unknown_values": float(unknown.sum()),
        },
    )


def cutpoints(
    logprobs: Float[Tensor, "n t"], trained: Bool[Tensor, "n t"], rho: float, interval: int
) -> Bool[Tensor, "n t"]:
    """First positions of segments: the value of the text *before* each of them is needed."""
    unsure = unsure_positions(logprobs, trained, rho)
    return unsure & ((unsure.cumsum(dim=1) - 1) % interval == 0)


def segment_advantages(
    values: Float[Tensor, "n c"], rewards: Float[Tensor, "n"], cuts: Bool[Tensor, "n t"]
) -> Float[Tensor, "n t"]:
    """V(next cut, or the reward behind the last) - V(latest cut), at each position; 0 before the first cut.

    Args:
        values: of the cuts of each row in order; columns behind the last cut do not matter.
        rewards: what the whole rollout got, in the unit of the values.
        cuts: first positions of segments.
    """
    count = cuts.sum(dim=1, keepdim=True)
    columns = torch.arange(values.shape[1] + 1, device=values.device)
    chain = torch.cat([values, values[:, :1]], dim=1)  # one more column, for the reward of a row that uses all
    chain = torch.where(columns < count, chain, rewards.unsqueeze(1))
    segment = cuts.cumsum(dim=1) - 1
    gained = (chain[:, 1:] - chain[:, :-1]).gather(1, segment.clamp(min=0))
    return torch.where(segment >= 0, gained, 0.0)


def _values_at_cuts(inputs: AdvantageInputs, cuts: Bool[Tensor, "n t"]) -> Float[Tensor, "n c"]:
    """Values of the cuts in order, 0 behind the last; at least one column."""
    width = max(int(cuts.sum(dim=1).max()), 1)
    exists = torch.arange(width, device=cuts.device) < cuts.sum(dim=1, keepdim=True)
    if inputs.values_at_cuts is not None:
        given = inputs.values_at_cuts
        if given.shape[1] < width and bool(cuts.any()):
            raise ValueError(
                f"`values_at_cuts` has {given.shape[1]} columns, but a sample has {width} cuts. Give one value per "
                "cut, in order; align.advantages.credit.spo_chain.cutpoints says where they are."
            )
        padded = torch.nn.functional.pad(given, (0, max(width - given.shape[1], 0)))
        return torch.where(exists, padded[:, :width], 0.0)
    first = torch.argsort((~cuts).long(), dim=1, stable=True)[:, :width]  # columns of the cuts, in order
    return torch.where(exists, inputs.tensor("values").gather(1, first), 0.0)
