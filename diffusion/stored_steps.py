"""The stored rows of a step: a pure function of (seed, step), so a resumed run needs the step number only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion.config import DiffusionRun
from diffusion.config.image_data import ImageSource
from diffusion.data import process_rows, step_rows
from diffusion.latent_store import LatentStore, refuse
from diffusion.models.base import Conditioning, DiffusionModel
from diffusion.needs import rows_per_step
from diffusion.stored_pictures import StoredPictures

if TYPE_CHECKING:
    from align.engine.distributed import Processes


@dataclass(frozen=True, kw_only=True)
class StoredStep:
    """This process's rows of a step.

    Attributes:
        index: number of each row in the step, over all processes.
        latents: of each picture of a row: one, or the two of a pair, the better first.
        usable: whether the row's pictures could be read.
        conditioning: one row per row.
        share: of the step's rows, over all processes, that are usable.
        unreadable: how many are not.
    """

    index: Int[Tensor, "n"]
    latents: Float[Tensor, "n s c h w"]
    usable: Bool[Tensor, "n"]
    conditioning: Conditioning
    share: float
    unreadable: int


class StoredSteps:
    """Steps of stored rows for an off-line method.

    Rows go through shuffled epochs: each is used once before any is used again.

    Args:
        config: the run's settings.
        data: those of the rows.
        pictures: the rows.
        model: encodes prompts and pictures.
        processes: who shares a step.
        timer: `timer(stage)` is a context manager.
    """

    def __init__(
        self,
        config: DiffusionRun,
        data: ImageSource,
        pictures: StoredPictures,
        *,
        model: DiffusionModel,
        processes: Processes,
        timer: Callable,
    ) -> None:
        self._seed, self._updates = config.seed, config.training.updates_per_rollout
        self._per_step, self._stops = rows_per_step(config), data.bad_rows == "error"
        self._pictures, self._model, self._processes, self._timer = pictures, model, processes, timer
        self._store = LatentStore(pictures, model, data, config.rollout.resolution)

    def __call__(self, step: int) -> StoredStep:
        """The rows of a step, numbered from 1; a collective.

        Raises:
            AlignError: a picture cannot be read, and such rows are not to be skipped; on all processes.
        """
        rows = step_rows(len(self._pictures), self._per_step, 1, self._seed, step - 1).prompt_index
        index = process_rows(self._per_step, self._updates, self._processes.rank, self._processes.world)
        own = rows[index].tolist()
        with self._timer("encode"):
            encoded = self._store(own)
            conditioning = self._model.encode([self._pictures.prompts[row] for row in own])
        problems = [problem for part in self._processes.gather_objects(encoded.problems) for problem in part]
        if self._stops:
            refuse(problems)
        return StoredStep(
            index=index,
            latents=encoded.latents,
            usable=encoded.usable,
            conditioning=conditioning,
            share=1 - len(problems) / self._per_step,
            unreadable=len(problems),
        )
