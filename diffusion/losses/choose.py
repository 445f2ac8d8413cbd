"""A named entry of a table of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def choose(table: Mapping[str, Callable[..., Tensor]], name: str, argument: str) -> Callable[..., Tensor]:
    """The function called `name`.

    Raises:
        ValueError: there is none; names the argument and all.
    """
    if name not in table:
        raise ValueError(f"expected {argument} to be one of {sorted(table)}, found {name!r}")
    return table[name]
