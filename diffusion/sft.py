"""Supervised fine-tuning on stored pictures: the pre-training loss on somebody's own data. A baseline.

loss = mean over pictures and times of L = mean((m(x_t, t, c) - target)^2)    + kl_beta mean((m - m_base)^2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch

from align.types import LossOutput
from diffusion.config import DiffusionRun, SftConfig
from diffusion.latent_batches import LatentBatch
from diffusion.method_state import State
from diffusion.models.base import DiffusionModel
from diffusion.probe import Prober
from diffusion.regression_objective import regression_output
from diffusion.stored_pictures import StoredPictures
from diffusion.stored_steps import StoredSteps

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes


class Sft:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        config: the run's settings.
        pictures: what is learnt.
        model: the model family.
        policy: the trained network.
        processes: who shares the pictures.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self,
        config: DiffusionRun,
        pictures: StoredPictures,
        *,
        model: DiffusionModel,
        policy: Policy,
        processes: Processes,
        timer: Callable,
    ) -> None:
        self.config = cast("SftConfig", config.algorithm)
        self._steps = StoredSteps(config, self.config.data, pictures, model=model, processes=processes, timer=timer)
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._step = self._unreadable = 0

    def collect(self, step: int) -> LatentBatch:
        """The next pictures."""
        self._step = step
        rows = self._steps(step)
        self._unreadable = rows.unreadable
        return LatentBatch(
            index=rows.index,
            latents=rows.latents[:, 0],
            conditioning=rows.conditioning,
            prompt_rows=torch.arange(len(rows.index)),
            weights=rows.usable.float(),
        )

    def prepare_update(self, update: int, rows: LatentBatch) -> None:
        """Nothing."""

    def loss(self, micro: LatentBatch) -> LossOutput:
        """See `regression_output`."""
        return regression_output(self._prober, micro, self._step, kl_beta=self.config.kl_beta)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Rows that could not be read."""
        return {"unreadable": float(self._unreadable)}

    def state_dict(self) -> State:
        """Nothing: rows and draws follow from the step."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing."""
