"""The weighted pre-training loss on a batch of pictures, wherever the pictures and the weights come from."""

from __future__ import annotations

from align.types import LossOutput
from diffusion.latent_batches import LatentBatch
from diffusion.losses import velocity_kl, weighted_regression
from diffusion.probe import Prober


def regression_output(prober: Prober, batch: LatentBatch, step: int, *, kl_beta: float) -> LossOutput:
    """mean_i w_i mean_t L_i,t + kl_beta mean((m - m_base)^2), and metrics.

    Args:
        prober: noises latents and passes them through the network.
        batch: pictures and their weights.
        step: number of the step.
        kl_beta: weight of the pull to the base model; 0 saves its pass.
    """
    rows = (batch.conditioning, batch.prompt_rows)
    probe = prober(batch.latents, batch.index, step)
    base = prober.reference(probe, *rows) if kl_beta > 0 else None
    output = prober.trained(probe, *rows)
    error = prober.error(output, probe)
    loss = policy_loss = weighted_regression(error, batch.weights).mean()
    metrics = {"policy_loss": policy_loss.detach(), "matching_error": error.detach().mean()}
    if base is not None:
        distance = velocity_kl(output, base, probe.times.flatten()).mean()
        loss = loss + kl_beta * distance
        metrics["kl"] = distance.detach()
    return LossOutput(loss=loss, count=len(batch), metrics=metrics)
