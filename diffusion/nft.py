"""DiffusionNFT: a good picture pulls the model towards itself, a bad one pushes it away; no likelihood, no chain.

    v+ = beta v + (1 - beta) v_old,   v- = (1 + beta) v_old - beta v,   r = clip(A / (2 clip) + 1/2, 0, 1)
    L+- = mean((x0+- - x0)^2) / sg(mean |x0+- - x0|),   x0+- = x_t - t v+-,   x_t = (1 - t) x0 + t eps
    loss = clip * mean[ r L+ / beta + (1 - r) L- / beta ] + kl_beta mean((v - v_base)^2)

v_old is the lagged policy, and it is the one that rolls out. Any sampler will do; only final latents are kept.

Paper (Zheng et al., arXiv:2509.16117) -> released code -> here:

* r: optimality probability with a normaliser Z -> clip(A / 10 + 1/2), Z = 5 -> the same, 5 is `pipeline.clip`; the loss
  is multiplied by it, as released.
* old policy: soft update after each epoch -> three schedules -> `lagged`: constant 0 (type 0), linear to 0.5 (type 1),
  linear to 0.999 from step 75 (type 2).
* times: all of the rollout's, one optimiser pass each -> the same times in one pass; fewer are strata of the schedule.
* guidance: none, neither in rollout nor in training -> the same; a second pass for guidance is refused.
* models that predict noise: not in the paper -> x0+- are the clean latents that m+- imply, which is the same formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from torch import Tensor

from align.errors import AlignError
from align.types import LossOutput
from diffusion.collect import Collector, DiffusionBatch
from diffusion.config import NftConfig
from diffusion.lagged import LaggedPolicy
from diffusion.losses import implicit_outputs, nft_loss, optimality, self_normalised_error, velocity_kl
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.probe import Probe, Prober

if TYPE_CHECKING:
    from align.engine.adapters import Policy


class Nft:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        timer: `timer(stage)` is a context manager.

    Raises:
        AlignError: advantages have no bound (`pipeline.clip: null`).
    """

    def __init__(self, collector: Collector, *, model: DiffusionModel, policy: Policy, timer: Callable) -> None:
        config = collector.config
        self.config = cast("NftConfig", config.algorithm)
        self._collector, self._policy = collector, policy
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._lagged = LaggedPolicy(policy, self.config.lagged)
        if config.pipeline.clip is None:
            raise AlignError(
                "DiffusionNFT maps advantages from +-`pipeline.clip` to 0 ... 1, and there is no such bound (`null`).",
                "Set `pipeline.clip`; released: 5.",
            )
        self._clip = config.pipeline.clip
        self._step = 0

    def collect(self, step: int) -> DiffusionBatch:
        """Roll out with the old policy, and score."""
        self._step = step
        with self._lagged.swapped() as network:
            return self._collector(step, network)

    def prepare_update(self, update: int, rows: DiffusionBatch) -> None:
        """Nothing: the old policy stays as it is until the step ends."""

    def loss(self, micro: DiffusionBatch) -> LossOutput:
        """Both implicit policies' errors and the pull to the base of a micro-batch, means over samples and times."""
        rows = (micro.conditioning, micro.prompt_rows)
        probe = self._prober(micro.latents, micro.samples.index, self._step)
        base = self._prober.reference(probe, *rows) if self.config.kl_beta > 0 else None
        with self._lagged.swapped() as network:
            old = self._prober.output(network, probe, *rows)
        output = self._prober.trained(probe, *rows)
        positive, negative = (
            self._error(implicit, probe) for implicit in implicit_outputs(output, old, self.config.beta)
        )
        advantages = micro.signal.advantages.to(positive)
        r = optimality(advantages, self._clip, self.config.advantages)
        loss = policy_loss = self._clip * nft_loss(positive, negative, r, self.config.beta).mean()
        times = probe.times.flatten()
        metrics = {
            "policy_loss": policy_loss.detach(),
            "nft/positive": positive.detach().mean(),
            "nft/negative": negative.detach().mean(),
            "matching_error": self._prober.error(output.detach(), probe).mean(),
            "kl_lagged": velocity_kl(output.detach(), old, times).mean(),
        }
        if base is not None:
            distance = velocity_kl(output, base, times).mean()
            loss = loss + self.config.kl_beta * distance
            metrics["kl"] = distance.detach()
        return LossOutput(loss=loss, count=len(micro), metrics=metrics)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Let the old policy follow."""
        return {"lagged_decay": self._lagged.follow(step)}

    def state_dict(self) -> State:
        """The old policy and the statistics of the reward pipeline."""
        return joined_state(lagged=self._lagged.state_dict(), pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`; where there was no old policy, it starts from the current weights."""
        self._lagged.load_state_dict(part_of_state(state, "lagged"))
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))

    def _error(self, output: Tensor, probe: Probe) -> Tensor:
        """Self-normalised error of the clean latents that an output implies, for each time and sample."""
        return self_normalised_error(self._prober.clean(output, probe), probe.clean).view_as(probe.times)
