"""Scores of each prompt that outlive a step: what a reference per prompt is estimated from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.groups import group_size
from align.shaping.transforms import quantile_reference


class StoredSamples:
    """The scored samples of every prompt from its first steps; then it is full and stands still.

    A step's samples of a prompt are taken together, so that the order of the rows does not matter. Give it the values
    of all processes at once: then every process holds the same ones.

    Args:
        enough: a prompt with at least this many takes no more.
    """

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.prompt_ids = torch.zeros(0, dtype=torch.int64)
        """Prompt of each stored sample."""
        self.values = torch.zeros(0, dtype=torch.float64)
        """Its score."""

    def update(self, values: Float[Tensor, "n"], prompt_ids: Int[Tensor, "n"]) -> None:
        """Take in a batch; NaN is left out."""
        scored = ~values.isnan()
        prompts, new = prompt_ids[scored].long().cpu(), values.detach()[scored].double().cpu()
        if len(prompts) == 0:
            return
        ids = torch.cat([self.prompt_ids, prompts])
        known = torch.arange(len(ids)) < len(self.values)
        room = group_size(ids, where=known)[len(self.values) :] < self.enough
        self.prompt_ids = torch.cat([self.prompt_ids, prompts[room]])
        self.values = torch.cat([self.values, new[room]])

    def reference(self, prompt_ids: Int[Tensor, "n"], *, q: float, method: str) -> Float[Tensor, "n"]:
        """r_ref of each row's prompt, as `quantile_reference` estimates it; NaN for a prompt that has no sample yet."""
        asked = prompt_ids.long().cpu()
        ids = torch.cat([self.prompt_ids, asked])
        values = torch.cat([self.values, torch.full((len(asked),), float("nan"), dtype=torch.float64)])
        found = quantile_reference(values, ids, q=q, method=method)[len(self.values) :]
        return found.to(prompt_ids.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Two tensors, one entry per stored sample."""
        return {"prompt_ids": self.prompt_ids, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Tensor | float]) -> None:
        """Inverse of `state_dict`."""
        self.prompt_ids = torch.as_tensor(state["prompt_ids"]).long()
        self.values = torch.as_tensor(state["values"]).double()
