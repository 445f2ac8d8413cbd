"""Advantage Weighted Matching: pull the model towards pictures of high advantage by its own pre-training loss.

    L_i,t  = mean over elements of (v(x_t, t, c_i) - (eps - x0_i))^2,   x_t = (1 - t) x0_i + t eps
    log p(x0_i) ~ -w(t, L_i,t)
    loss   = mean max(-A rho, -A clip(rho)) + kl_beta mean((v - v_base)^2) + lagged.kl_beta mean((v - v_lagged)^2)

On a model that predicts noise (or v, or x0) the same with its own x_t, output and target (`diffusion.paths.DdpmPath`):
the score-matching form. `kl_weighting: elbo` is of the flow path and is refused there.

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
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from align.errors import AlignError
from align.types import LossOutput
from diffusion.collect import Collector, DiffusionBatch
from diffusion.config import AwmConfig
from diffusion.lagged import LaggedPolicy
from diffusion.losses import awm_log_prob, awm_policy_term, velocity_kl
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.paths import FlowPath
from diffusion.probe import Probe, Prober

if TYPE_CHECKING:
    from align.engine.adapters import Policy


class Awm:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        timer: `timer(stage)` is a context manager.

    Raises:
        AlignError: a weighting of the flow path on another one.
    """

    def __init__(self, collector: Collector, *, model: DiffusionModel, policy: Policy, timer: Callable) -> None:
        config = collector.config
        self.config = cast("AwmConfig", config.algorithm)
        _check_path(self.config, model)
        self._run, self._collector, self._model, self._policy, self._timer = config, collector, model, policy, timer
        self._step = 0
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        clip = config.pipeline.clip
        self._advantage_scale = self.config.advantage_max / clip if clip is not None else self.config.advantage_max
        self._lagged = LaggedPolicy(policy, self.config.lagged.schedule) if self.config.lagged else None

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
        probe = self._probe(micro)
        pulls = self._pulls(probe, micro)
        output = self._prober.trained(probe, micro.conditioning, micro.prompt_rows)
        error = self._prober.error(output, probe)
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
            distance = velocity_kl(output, other, probe.times.flatten(), self.config.kl_weighting).mean()
            loss = loss + beta * distance
            metrics[name] = distance.detach()
        return LossOutput(loss=loss, count=len(micro), metrics=metrics)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Let the lagged policy follow."""
        return {} if self._lagged is None else {"lagged_decay": self._lagged.follow(step)}

    def state_dict(self) -> State:
        """The lagged policy and the statistics of the reward pipeline."""
        lagged = {} if self._lagged is None else self._lagged.state_dict()
        return joined_state(lagged=lagged, pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`. Where the lagged policy was off before, it starts from the current weights."""
        if self._lagged is not None:
            self._lagged.load_state_dict(part_of_state(state, "lagged"))
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))

    def _rollout_policy(self):
        return self._lagged.swapped() if self.config.off_policy and self._lagged is not None else nullcontext()

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
                output = self._prober.output(self._policy.module, probe, micro.conditioning, micro.prompt_rows)
            parts.append(self._log_probs(self._prober.error(output, probe), probe).T)
        return replace(batch, old_log_probs=torch.cat(parts))

    def _probe(self, micro: DiffusionBatch) -> Probe:
        return self._prober(micro.latents, micro.samples.index, self._step)

    def _pulls(self, probe: Probe, micro: DiffusionBatch) -> dict[str, tuple[float, Tensor]]:
        """Metric -> (weight, output) of each policy that the trained one is pulled to; weight 0 saves the pass."""
        pulls: dict[str, tuple[float, Tensor]] = {}
        settings = self.config.lagged
        if self.config.kl_beta > 0:
            base = self._prober.reference(probe, micro.conditioning, micro.prompt_rows)
            pulls["kl"] = (self.config.kl_beta, base)
        if self._lagged is not None and settings is not None and settings.kl_beta > 0:
            with self._lagged.swapped() as network:
                lagged = self._prober.output(network, probe, micro.conditioning, micro.prompt_rows)
            pulls["kl_lagged"] = (settings.kl_beta, lagged)
        return pulls

    def _log_probs(self, error: Tensor, probe: Probe) -> Float[Tensor, "t b"]:
        return awm_log_prob(error, probe.times, self.config.weighting, self.config.ghuber_power)

    def _ratio_metrics(self, log_ratio: Tensor) -> dict[str, Tensor]:
        ratio = log_ratio.exp()
        outside = (ratio - 1).abs() > self.config.clip_range
        return {"ratio_deviation": (ratio - 1).abs().mean(), "clip_ratio": outside.double().mean()}


def _check_path(config: AwmConfig, model: DiffusionModel) -> None:
    if config.kl_weighting == "elbo" and not isinstance(model.path, FlowPath):
        raise AlignError(
            "`algorithm.kl_weighting: elbo` is the weight of a flow model's SDE, and this model predicts noise.",
            "Set `algorithm.kl_weighting: uniform`.",
        )


def _old(micro: DiffusionBatch, log_probs: Tensor) -> Tensor:
    """Old log-probabilities, time-major; where there are none the current policy is the old one."""
    if micro.old_log_probs is None:
        return log_probs.detach()
    old = micro.old_log_probs.T.to(log_probs)
    return torch.where(old.isnan(), log_probs.detach(), old)
