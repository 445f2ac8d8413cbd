"""Diffusion-DPO off-line: stored pairs of pictures, of which people preferred one; no rollout, no reward.

    z = -beta/2 [ (L_w - L_l) - (Lref_w - Lref_l) ],    loss = -log sigmoid(z),    L = mean((m - target)^2) at x_t

with one time and one noise for both pictures and both networks. On models that predict noise it is Diffusion-DPO, on
flow models Flow-DPO; only `path` differs.

Papers (Wallace et al., arXiv:2311.12908; Liu et al., arXiv:2501.13918) -> released code -> here:

* beta: T and the weight over time are constants in it -> 2000 (SD1.5) to 5000 (SDXL), with the factor 1/2 -> the same.
* times: uniform over all T (noise prediction), logit-normal (flows) -> the same -> `times`.
* pictures: random crop and, by option, flip, encoded in every step -> here the middle, never flipped, encoded once.
* rows without a preference: left out -> the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch

from align.types import LossOutput
from diffusion.config import DiffusionDpoConfig, DiffusionRun
from diffusion.latent_batches import PairBatch
from diffusion.method_state import State
from diffusion.models.base import DiffusionModel
from diffusion.pair_objective import dpo_output
from diffusion.probe import Prober
from diffusion.stored_pictures import StoredPictures
from diffusion.stored_steps import StoredSteps

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes


class DiffusionDpo:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`).

    Args:
        config: the run's settings.
        pictures: the pairs.
        model: the model family.
        policy: the trained network.
        processes: who shares the pairs.
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
        self.config = cast("DiffusionDpoConfig", config.algorithm)
        self._steps = StoredSteps(config, self.config.data, pictures, model=model, processes=processes, timer=timer)
        self._prober = Prober(config, self.config.times, model=model, policy=policy, timer=timer)
        self._step = self._unreadable = 0

    def collect(self, step: int) -> PairBatch:
        """The next pairs."""
        self._step = step
        rows = self._steps(step)
        self._unreadable = rows.unreadable
        return PairBatch(
            index=rows.index,
            chosen=rows.latents[:, 0],
            rejected=rows.latents[:, 1],
            conditioning=rows.conditioning,
            prompt_rows=torch.arange(len(rows.index)),
            weights=rows.usable.float(),
            share=rows.share,
        )

    def prepare_update(self, update: int, rows: PairBatch) -> None:
        """Nothing: the reference is the base model."""

    def loss(self, micro: PairBatch) -> LossOutput:
        """See `dpo_output`."""
        settings = self.config
        return dpo_output(self._prober, micro, self._step, beta=settings.beta, label_smoothing=settings.label_smoothing)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Rows that could not be read."""
        return {"unreadable": float(self._unreadable)}

    def state_dict(self) -> State:
        """Nothing: rows and draws follow from the step."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing."""
