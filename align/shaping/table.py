"""The reward table as the stages of a pipeline see it: named columns, float64, NaN where there is no finite number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.errors import did_you_mean
from align.groups import check_ids
from align.types import RewardTable


@dataclass(frozen=True, kw_only=True)
class Columns:
    """All rewards of all processes' rows.

    Attributes:
        names: one per column.
        raw: before any transform, float64; infinities count as not scored.
        given: the weights of the table, one per column.
        ids: group of each row.
        prompts: number of each row's prompt that is the same in every step.
        update: whether running statistics may take these rows in (false in evaluation).
        prompt_weights: reward -> weight of each row's prompt or group, where something infers weights from prompts or
            draws them for groups.
    """

    names: tuple[str, ...]
    raw: Float[Tensor, "n k"]
    given: Float[Tensor, "k"]
    ids: Int[Tensor, "n"]
    prompts: Int[Tensor, "n"]
    update: bool = True
    prompt_weights: Mapping[str, Float[Tensor, "n"]] | None = None

    def position(self, name: str) -> int:
        """Column of a reward.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.names:
            raise ValueError(
                f"the pipeline names a reward `{name}`.{did_you_mean(name, self.names)} "
                f"There are: {', '.join(self.names)}."
            )
        return self.names.index(name)

    def column(self, name: str) -> Float[Tensor, "n"]:
        """Raw values of a reward."""
        return self.raw[:, self.position(name)]

    def marked(self, names: Iterable[str]) -> Bool[Tensor, "k"]:
        """True for the columns of these names."""
        marks = torch.zeros(len(self.names), dtype=torch.bool)
        for name in names:
            marks[self.position(name)] = True
        return marks


def columns_of(
    table: RewardTable,
    group_ids: Int[Tensor, "n"],
    *,
    prompt_ids: Int[Tensor, "n"] | None = None,
    update: bool = True,
    prompt_weights: Mapping[str, Tensor] | None = None,
) -> Columns:
    """The table, checked. Without `prompt_ids` the groups are the prompts.

    Raises:
        ValueError: no rows, or not one group id per row.
    """
    check_ids(group_ids)
    rows = table.values.shape[0]
    if rows == 0:
        raise ValueError("the reward table is empty: there is no sample to compare. Collect samples first.")
    if group_ids.shape != (rows,):
        raise ValueError(f"expected one group id per row ({rows}), found group_ids of shape {list(group_ids.shape)}.")
    values = table.values.detach().double()
    finite = torch.where(values.isfinite(), values, float("nan"))
    return Columns(
        names=table.names,
        raw=finite,
        given=table.weights.double(),
        ids=group_ids,
        prompts=group_ids if prompt_ids is None else prompt_ids,
        update=update,
        prompt_weights=prompt_weights,
    )


def equal_rows_agree(
    scores: Float[Tensor, "n"], inputs: Float[Tensor, "n m"], group_ids: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Rows of a group with the same inputs, bit for bit, get the score of the first of them.

    Vectorised exp and log may differ in the last bit between places of one tensor. Equal rewards are worth exactly zero
    advantage (rule C1), so that bit must not be there.
    """
    filled = torch.where(inputs.isnan(), float("nan"), inputs + 0.0)  # one NaN and one zero
    keys = torch.cat([group_ids.long().unsqueeze(1), filled.contiguous().view(torch.int64)], dim=1)
    _, code = torch.unique(keys, dim=0, return_inverse=True)
    places = torch.arange(len(scores))
    first = torch.full((int(code.max()) + 1,), len(scores)).scatter_reduce(0, code, places, "amin")
    return scores[first[code]]
