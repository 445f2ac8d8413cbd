"""Rows of a step that travel between processes: a pair's better and worse picture may lie on different ones.

Pictures are chosen by the scores of all rows, in global order, so that the choice does not depend on the number of
processes. Only the latents of chosen rows travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.collect import DiffusionBatch

if TYPE_CHECKING:
    from align.engine.distributed import Processes


@dataclass(frozen=True, kw_only=True)
class WholeStep:
    """What every process knows about all rows of a step; row i of the tensors is global row i.

    Attributes:
        scores: NaN where unscored.
        group_ids: equal ids answer the same prompt.
        prompts: text of each group id.
    """

    scores: Float[Tensor, "all"]
    group_ids: Int[Tensor, "all"]
    prompts: dict[int, str]

    def groups(self) -> Int[Tensor, "p"]:
        """Group ids in the order in which they first appear: rows are shuffled, and so is this."""
        return torch.tensor(list(dict.fromkeys(self.group_ids.tolist())), dtype=torch.int64)


def whole_step(batch: DiffusionBatch, processes: Processes) -> WholeStep:
    """The rows of all processes; a collective."""
    samples = batch.samples
    order = processes.gather_rows(samples.index).argsort()
    texts = dict(zip(samples.group_ids.tolist(), samples.prompts, strict=True))
    prompts: dict[int, str] = {}
    for part in processes.gather_objects(texts):
        prompts |= part
    return WholeStep(
        scores=processes.gather_rows(batch.signal.scores)[order],
        group_ids=processes.gather_rows(samples.group_ids)[order],
        prompts=prompts,
    )


def fetch_latents(
    batch: DiffusionBatch, chosen: Int[Tensor, "m"], wanted: Int[Tensor, "k"], processes: Processes
) -> Float[Tensor, "k c h w"]:
    """Latents of rows that may be anywhere; a collective.

    Args:
        batch: this process's rows.
        chosen: global row numbers that some process wants, the same list on all.
        wanted: those of them that this process wants.
        processes: who takes part.
    """
    own = batch.samples.index
    sent = torch.isin(own, chosen)
    numbers = processes.gather_rows(own[sent])
    latents = processes.gather_rows(batch.latents[sent.to(batch.latents.device)])
    place = {number: position for position, number in enumerate(numbers.tolist())}
    rows = torch.tensor([place[number] for number in wanted.tolist()], dtype=torch.int64)
    return latents[rows.to(latents.device)]
