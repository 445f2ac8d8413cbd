"""Checks that every transform shares."""

from __future__ import annotations

from torch import Tensor

from align.groups import check_ids


def check_column(values: Tensor, group_ids: Tensor) -> None:
    """Raise a ValueError unless there is one integer id per reward."""
    check_ids(group_ids)
    if values.shape != group_ids.shape or values.ndim != 1:
        raise ValueError(
            f"expected one group id per reward, found rewards of shape {list(values.shape)} and ids of shape "
            f"{list(group_ids.shape)}. Give a transform one column of the table at a time."
        )


def check_scale(scale: float) -> None:
    """Raise a ValueError unless the scale is a positive number."""
    if not 0 < scale < float("inf"):
        raise ValueError(f"`scale` must be a finite number above 0, found {scale}.")
