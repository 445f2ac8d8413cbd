"""Reward-weighted regression: the pre-training loss on the model's own pictures, each weighted by its reward.

    loss = mean_i w_i L_i,    L_i = mean((m(x_t, t, c_i) - target)^2)
    exponential: w_i = exp(r_i / temperature) / mean over its group of exp(r / temperature)        raw: w_i = r_i

A baseline: it pulls towards better pictures and never away from worse ones (with `raw` it does where r < 0).

Definition (Peters and Schaal, ICML 2007) -> released code for images -> here:

* weight: exp(r / temperature), normalised -> the bare reward -> both, `weights`. We normalise within the pictures of a
  prompt, because rewards of different prompts are not comparable.
* r: the reward -> the same -> the score that `pipeline` makes of the rewards; its estimator of advantages has no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from align.objectives import effective_share
from align.types import LossOutput
from diffusion.collect import Collector
from diffusion.config import RwrConfig
from diffusion.exchange import whole_step
from diffusion.latent_batches import LatentBatch
from diffusion.losses import REWARD_WEIGHTS
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.probe import Prober
from diffusion.regression_objective import regression_output

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes


class Rwr:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        collector: rolls out and scores; `collector.config` is the run's settings.
        model: the model family.
        policy: the trained network.
        processes: who has the other samples of a group.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self, collector: Collector, *, model: DiffusionModel, policy: Policy, processes: Processes, timer: Callable
    ) -> None:
        config = collector.config
        self.config = cast("RwrConfig", config.algorithm)
        self._collector, self._policy, self._processes, self._timer = collector, policy, processes, timer
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._step = 0
        self._found: dict[str, float] = {}

    def collect(self, step: int) -> LatentBatch:
        """Roll out, score, and weigh every sample against its whole group."""
        self._step = step
        drawn = self._collector(step, self._policy.module)
        with self._timer("advantage"):
            everything = whole_step(drawn, self._processes)
            weights = REWARD_WEIGHTS[self.config.weights](
                everything.scores, everything.group_ids, self.config.temperature
            )
        self._found = {"effective_share": effective_share(weights)}
        return LatentBatch(
            index=drawn.samples.index,
            latents=drawn.latents,
            conditioning=drawn.conditioning,
            prompt_rows=drawn.prompt_rows,
            weights=weights[drawn.samples.index],
            samples=drawn.samples,
            rewards=drawn.rewards,
            signal=drawn.signal,
        )

    def prepare_update(self, update: int, rows: LatentBatch) -> None:
        """Nothing."""

    def loss(self, micro: LatentBatch) -> LossOutput:
        """See `regression_output`."""
        return regression_output(self._prober, micro, self._step, kl_beta=self.config.kl_beta)

    def after_step(self, step: int) -> Mapping[str, float]:
        """How many samples count."""
        return self._found

    def state_dict(self) -> State:
        """The statistics of the reward pipeline."""
        return joined_state(pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))
