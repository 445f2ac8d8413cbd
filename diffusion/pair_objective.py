"""The Diffusion-DPO objective on a batch of pairs, wherever the pairs come from."""

from __future__ import annotations

import torch
from torch import Tensor

from align.types import LossOutput
from diffusion.latent_batches import PairBatch
from diffusion.losses import implicit_reward, pair_loss
from diffusion.probe import Prober


def dpo_output(prober: Prober, batch: PairBatch, step: int, *, beta: float, label_smoothing: float) -> LossOutput:
    """Loss and metrics, means over pairs and times. Both pictures of a pair share their times and noise.

    Args:
        prober: noises latents and passes them through the network.
        batch: pairs.
        step: number of the step.
        beta: see `diffusion.losses.pairs`.
        label_smoothing: see `pair_loss`.
    """
    latents = torch.cat([batch.chosen, batch.rejected])
    rows = (batch.conditioning, batch.prompt_rows.repeat(2))
    probe = prober(latents, batch.index.repeat(2), step)
    base = prober.error(prober.reference(probe, *rows), probe)
    error = prober.error(prober.trained(probe, *rows), probe)
    chosen, rejected = implicit_reward(error, base, beta).chunk(2, dim=1)
    weights = batch.weights.to(error)
    loss = (weights * pair_loss(chosen - rejected, label_smoothing)).mean()
    margin = (chosen - rejected).detach()

    def mean(values: Tensor) -> Tensor:
        """Such that the step's mean over all places is the mean over its pairs; NaN where it has none."""
        return (weights * values.detach()).mean() / (batch.share or torch.nan)

    return LossOutput(
        loss=loss,
        count=len(batch),
        metrics={
            "rewards/chosen": mean(chosen),
            "rewards/rejected": mean(rejected),
            "rewards/margins": mean(margin),
            "rewards/accuracies": mean((margin > 0).to(margin)),
            "matching_error": mean(torch.stack(error.chunk(2, dim=1)).mean(0)),
        },
    )
