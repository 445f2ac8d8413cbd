"""Which rollouts share noise: the same initial noise in a group, or a tree whose rollouts part ways at given steps.

Noise is keyed by a row number. Rollouts that share a draw take the number of the first of them, wherever they run; so
`noise_keys` is all there is to a tree, and its columns name the tree's nodes for credit assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


def noise_keys(
    group_ids: Int[Tensor, "n"],
    steps: int,
    *,
    share_initial: bool = False,
    splits: Sequence[int] = (),
    factor: int = 2,
) -> Int[Tensor, "n t1"]:
    """Row number that keys the initial noise (column 0) and the noise of step j (column j + 1) of each row.

    With splits at steps s_1 < s_2 < ... the K rollouts of a group, in order of their rows, are cut into `factor` equal
    blocks at each split; until then they share all noise, the initial one included. factor^(number of splits) = K.

    Args:
        group_ids: of all rows of a step in the order of their numbers; every group has K rows.
        steps: network steps.
        share_initial: start a group from the same noise, without splits: independent from the first noisy step on.
        splits: steps at which rollouts part ways; none = every rollout has noise of its own.
        factor: branches of a split.

    Raises:
        ValueError: groups of different sizes, or a tree that does not have one leaf for each rollout.
    """
    members = _members(group_ids)
    size = members.shape[1]
    if splits and factor ** len(splits) != size:
        raise ValueError(
            f"{len(splits)} splits into {factor} branches make {factor ** len(splits)} leaves, found groups of {size}"
        )
    columns = []
    for step in range(-1, steps):
        passed = sum(split <= step for split in splits)
        if splits:
            block = size // factor**passed
        else:
            block = size if step < 0 and share_initial else 1
        leaders = members.view(len(members), size // block, block)[..., :1].expand(-1, -1, block)
        columns.append(torch.empty_like(group_ids).scatter_(0, members.flatten(), leaders.flatten()))
    return torch.stack(columns, dim=1)


def _members(group_ids: Int[Tensor, "n"]) -> Int[Tensor, "p k"]:
    """Rows of each group, ascending."""
    _, counts = group_ids.unique(return_counts=True)
    if len(counts) == 0 or bool((counts != counts[0]).any()):
        raise ValueError(f"expected groups of one size, found sizes {sorted(set(counts.tolist()))}")
    return group_ids.argsort(stable=True).view(len(counts), int(counts[0]))


@dataclass(frozen=True)
class Nodes:
    """Rows that are the same so far, as one: the network need see them once.

    Attributes:
        first: a row of each node, ascending.
        of_row: node of each row.
    """

    first: Int[Tensor, "m"]
    of_row: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def apart(cls, rows: int) -> Nodes:
        """Every row by itself."""
        return cls(torch.arange(rows), torch.arange(rows))

    @classmethod
    def of(cls, keys: Int[Tensor, "n"]) -> Nodes:
        """One node for each distinct key, in order of first appearance."""
        _, inverse = keys.unique(return_inverse=True)
        rows = torch.arange(len(keys))
        first = torch.full((int(inverse.max()) + 1,), len(keys)).scatter_reduce(0, inverse, rows, "amin")
        order = first.argsort()
        return cls(first[order], order.argsort()[inverse])

    def spread(self, values: Tensor) -> Tensor:
        """Values of nodes on their rows."""
        return values if len(self.first) == len(self.of_row) else values[self.of_row.to(values.device)]
