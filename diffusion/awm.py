"""Advantage Weighted Matching: pull the model towards pictures of high advantage by its own pre-training loss.

    L_i,t  = mean over elements of (v(x_t, t, c_i) - (eps - x0_i))^2,   x_t = (1 - t) x0_i + t eps
    log p(x0_i) ~ -w(t, L_i,t)
    loss   = mean max(-A rho, -A clip(rho)) + kl_beta mean((v - v_base)^2) + lagged.kl_beta mean((v - v_lagged)^2)

Paper (Xue et al., arXiv:2509.25050) -> released code -> here:

* weighting: uniform -> ghuber, p = 0.25, times t -> both, `algorithm.weighting`.
* times per sample: 4 -> 6 from strata of the rollout's schedule -> both, `algorithm.times`. The released code draws the
  times of a micro-batch together; we draw them for each sample, because a result must not depend on the micro-batch
  size. The expectation is the same.
* KL to the base: beta 0.4 or 0.01 -> 0.0001 to 0.003 next to a lagged policy with weight 1 -> both, `kl_beta` and
  `lagged`. In the released code the lagged term needs `kl_beta` > 0; here each stands alone.
* sampler: Euler-Maruyama -> SA-Solver -> both and the plain ODE, `rollout.sampler`. Only the final latents are kept.
* ratio: one update per rollout makes it exactly 1 and its clip never acts. Later updates of a rollout compare with the
  weights that drew the samples, at the same times and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.engine.random import keyed_normal
from align.types import LossOutput
from diffusion.collect import Collector, DiffusionBatch
from diffusion.config import AwmConfig
from diffusion.losses import awm_log_prob, awm_policy_term, matching_error, velocity_kl
from diffusion.models.base import DiffusionModel
from diffusion.paths import noised
from diffusion.timesteps import draw_times

if TYPE_CHECKING:
    from align.engine.adapters import Policy

_LAGGED = "lagged/"
_PIPELINE = "pipeline/"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Where the policy's velocity is compared: the same for the new, old, base and lagged policy. Rows are time-major.

    Attributes:
        times: t of each draw and sample.
        noise: eps of each row.
        clean: x0 of each row, repeated over draws.
        x_t: the noised latents.
    """

    times: Float[Tensor, "t b"]
    noise: Float[Tensor, "m c h w"]
    clean: Float[Tensor, "m c h w"]
    x_t: Float[Tensor, "m c h w"]


class Awm:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(self, collector: Collector, *, model: DiffusionModel, policy: Policy, timer: Callable) -> None:
        config = collector.config
        self.config: AwmConfig = config.algorithm
        self._run, self._collector, self._model, self._policy, self._timer = config, collector, model, policy, timer
        self._step = 0
        self._sigmas = model.times(config.rollout.num_inference_steps, config.rollout.resolution)
        clip = config.pipeline.clip
        self._advantage_scale = self.config.advantage_max / clip if clip is not None else self.config.advantage_max
        self._lagged = (
            {name: weight.clone() for name, weight in policy.state_dict().items()} if self.config.lagged else {}
        )

    def collect(self, step: int) -> DiffusionBatch:
        """Roll out and score; old log-probabilities for the updates that will find changed weights."""
        self._step = step
        with self._rollout_policy():
            batch = self._collector(step, self._policy.module)
            return self._with_old_log_probs(batch)

    def prepare_update(self, update: int, rows: DiffusionBatch) -> None:
        """Nothing: old log-probabilities belong to the weights of the rollout, so `collect` has computed them."""

    def loss(self, micro: DiffusionBatch) -> LossOutput:
        """Policy term and both velocity differences of a micro-batch, means over samples and times."""
        with self._timer("noise"):
            probe = self._probe(micro)
        pulls = self._pulls(probe, micro)
        velocity = self._velocity(self._policy.network, probe, micro)
        error = matching_error(velocity, probe.clean, probe.noise).view_as(probe.times)
        log_probs = self._log_probs(error, probe)
        advantages = micro.signal.advantages.to(log_probs) * self._advantage_scale
        term = awm_policy_term(log_probs, _old(micro, log_probs), advantages, self.config.clip_range, self.config.ratio)
        loss = policy_loss = term.loss.mean()
        metrics = {
            "policy_loss": policy_loss.detach(),
            "matching_error": error.detach().mean(),
            **self._ratio_metrics(term.log_ratio),
        }
        for name, (beta, other) in pulls.items():
            distance = velocity_kl(velocity, other, probe.times.flatten(), self.config.kl_weighting).mean()
            loss = loss + beta * distance
            metrics[name] = distance.detach()
        return LossOutput(loss=loss, count=len(micro), metrics=metrics)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Let the lagged policy follow: target <- d target + (1 - d) current, d from the step just done."""
        lagged = self.config.lagged
        if lagged is None:
            return {}
        decay = min(lagged.max_decay, lagged.decay_per_step * step)
        current = self._policy.state_dict()
        with torch.no_grad():
            for name, target in self._lagged.items():
                target.mul_(decay).add_(current[name], alpha=1 - decay)
        return {"lagged_decay": decay}

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """The lagged policy and the statistics of the reward pipeline."""
        return {
            **{_LAGGED + name: weight for name, weight in self._lagged.items()},
            **{_PIPELINE + name: value for name, value in self._collector.pipeline.state_dict().items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Inverse of `state_dict`. Where the lagged policy was off before, it starts from the current weights."""
        current = self._policy.state_dict()
        for name, weight in self._lagged.items():
            saved = state.get(_LAGGED + name, current[name])
            weight.copy_(cast("Tensor", saved))  # under this prefix `state_dict` puts weights only
        pipeline = {name.removeprefix(_PIPELINE): value for name, value in state.items() if name.startswith(_PIPELINE)}
        self._collector.pipeline.load_state_dict(pipeline)

    def _rollout_policy(self):
        return self._policy.swapped(self._lagged) if self.config.off_policy else nullcontext()

    def _with_old_log_probs(self, batch: DiffusionBatch) -> DiffusionBatch:
        """Log-probabilities under the weights that roll out, for rows whose update comes after these have changed.

        The first update's own log-probabilities are the old ones (its ratio is exactly 1); it needs no pass.
        """
        first = 0 if self.config.off_policy else len(batch) // self._run.training.updates_per_rollout
        if first == len(batch):
            return batch
        parts = [
            torch.full((first, self.config.times.draws), torch.nan, dtype=torch.float64, device=self._model.device)
        ]
        for rows in torch.arange(first, len(batch)).split(self._run.training.micro_batch_size):
            micro = batch.select(rows)
            probe = self._probe(micro)
            with torch.no_grad(), self._timer("forward"):
                velocity = self._velocity(self._policy.module, probe, micro)
            error = matching_error(velocity, probe.clean, probe.noise).view_as(probe.times)
            parts.append(self._log_probs(error, probe).T)
        return replace(batch, old_log_probs=torch.cat(parts))

    def _probe(self, micro: DiffusionBatch) -> Probe:
        """Times and noise of each sample, keyed by its global row: any pass over these samples sees the same ones."""
        index, device = micro.samples.index, micro.latents.device
        key = (self._run.seed, self._step)
        times = draw_times(self.config.times, self._sigmas, index, 1, *key, "train_times").to(device)
        draws = len(times)
        noise = keyed_normal((draws, *micro.latents.shape[1:]), index, *key, "train_noise").to(device)
        noise = noise.transpose(0, 1).flatten(0, 1)
        clean = micro.latents.repeat(draws, 1, 1, 1)
        return Probe(times=times, noise=noise, clean=clean, x_t=noised(clean, noise, times.flatten()))

    def _velocity(self, network: nn.Module, probe: Probe, micro: DiffusionBatch) -> Tensor:
        """One pass over all draws of a micro-batch, with the rollout's guidance: that is the policy that is trained."""
        conditioning = micro.conditioning.select(micro.prompt_rows.repeat(len(probe.times)))
        return self._model.predict(
            network, probe.x_t, probe.times.flatten(), conditioning, self._run.rollout.guidance_scale
        )

    def _pulls(self, probe: Probe, micro: DiffusionBatch) -> dict[str, tuple[float, Tensor]]:
        """Metric -> (weight, velocity) of each policy that the trained one is pulled to; weight 0 saves the pass."""
        pulls: dict[str, tuple[float, Tensor]] = {}
        lagged = self.config.lagged
        if self.config.kl_beta > 0:
            with self._policy.reference() as network:
                pulls["kl"] = (self.config.kl_beta, self._velocity(network, probe, micro))
        if lagged is not None and lagged.kl_beta > 0:
            with self._policy.swapped(self._lagged) as network:
                pulls["kl_lagged"] = (lagged.kl_beta, self._velocity(network, probe, micro))
        return pulls

    def _log_probs(self, error: Tensor, probe: Probe) -> Float[Tensor, "t b"]:
        return awm_log_prob(error, probe.times, self.config.weighting, self.config.ghuber_power)

    def _ratio_metrics(self, log_ratio: Tensor) -> dict[str, Tensor]:
        ratio = log_ratio.exp()
        outside = (ratio - 1).abs() > self.config.clip_range
        return {"ratio_deviation": (ratio - 1).abs().mean(), "clip_ratio": outside.double().mean()}


def _old(micro: DiffusionBatch, log_probs: Tensor) -> Tensor:
    """Old log-probabilities, time-major; where there are none the current policy is the old one."""
    if micro.old_log_probs is None:
        return log_probs.detach()
    old = micro.old_log_probs.T.to(log_probs)
    return torch.where(old.isnan(), log_probs.detach(), old)
